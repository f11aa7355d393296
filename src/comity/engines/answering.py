"""The local engine in the form of an external model: questions in, replies out."""

from collections.abc import Sequence

from comity.access.records import OnReply, Question, Reply, hash_question
from comity.engines.local import LocalEngine
from comity.types import Completion, Request

ROWS_AT_ONCE = 8
"""Questions of one batch; a kill costs at most the batch under way."""


def ask_locally(
    engine: LocalEngine, name: str, questions: Sequence[Question], on_reply: OnReply | None = None
) -> list[Reply]:
    """Return the replies in order; `on_reply(index, reply)` is called after each batch.

    A question has its own seed, which follows from everything that decides its reply. The JSON schema is not enforced.
    """
    replies: list[Reply] = []
    for first in range(0, len(questions), ROWS_AT_ONCE):
        batch = questions[first : first + ROWS_AT_ONCE]
        requests = [Request("text", q.messages, q.sampling, _seed(name, q)) for q in batch]
        for place, completion in enumerate(engine(requests), first):
            replies.append(_to_reply(completion))
            if on_reply is not None:
                on_reply(place, replies[-1])
    return replies


def _seed(name: str, question: Question) -> int:
    return int(hash_question(name, question)[:15], 16)


def _to_reply(completion: Completion) -> Reply:
    counts = (len(completion.prompt_ids), len(completion.token_ids))
    if completion.finish == "length":
        return Reply(None, "truncated", *counts)
    if completion.finish == "error" or not completion.text.strip():
        return Reply(None, "empty reply", *counts)
    return Reply(completion.text, "", *counts)
