"""Ask models behind an address: bounded, retried, paid for once, and stopped at a cap.

records     a question, its reply, and the key under which a reply is kept
prices      dollars per million tokens
store       paid replies and the ledger, in one SQLite file that survives a kill
ledger      the ledger, read beside those who write it
budget      what may still be spent
limits      requests and tokens per minute
provider    one model as Inspect reaches it, and the words for what went wrong
session     the work behind one open model: look up, ask, retry, book
client      open a model and ask it from any thread
"""

from comity.access.client import ModelAccess, open_access
from comity.access.records import Question, Reply, Spend

__all__ = ["ModelAccess", "Question", "Reply", "Spend", "open_access"]
