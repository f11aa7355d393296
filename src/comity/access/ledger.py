"""Read the ledger beside those who write it: what every run has paid to whom, also while it goes on."""

import sqlite3
from contextlib import closing
from pathlib import Path

from comity.access.records import Spend
from comity.access.store import NOT_KEPT, select_spend
from comity.errors import RunError


def read_ledger(path: str, run: str | None = None) -> list[Spend]:
    """Return the ledger of a file by run, account and model: of one run, or of all; [] when nothing was ever kept.

    The file is not written to and not made. Raise RunError when it is no file of replies.
    """
    if path == NOT_KEPT or not Path(path).is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True, timeout=60)) as database:
            if not database.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'calls'").fetchone()[0]:
                return []  # another process is just laying it out
            return select_spend(database, run)
    except sqlite3.Error as error:
        raise RunError(f"access.cache {path} is no file of replies ({error}); name another file") from error
