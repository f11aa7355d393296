"""A question to a model behind an address, its reply, and the key under which a reply is kept."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from comity.types import Message, Sampling


@dataclass(frozen=True, slots=True)
class Question:
    """One question; `repeat` tells apart several asks of the same prompt, each of which is paid for.

    `account` is where the money is booked, such as `judge/agency` or `data/dilemmas`. `json_schema` asks for a reply
    of that shape from providers that can promise one. With `keep_cut`, a reply that ran into the longest length keeps
    its text beside the problem `truncated`: a message of a dialogue is one all the same, a verdict is none.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    template_hash: str
    account: str
    repeat: int = 0
    json_schema: dict[str, Any] | None = None
    keep_cut: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply; without a usable one `text` is None and `problem` says why (beside a text: what it lacks).

    `cost` is in dollars, None where the model has no price. A cached reply costs nothing; its tokens are those that
    were paid for when it came.
    """

    text: str | None
    problem: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    cached: bool = False


OnReply = Callable[[int, Reply], None]
"""Called with the place of the question and its reply."""


@dataclass(frozen=True, slots=True)
class Spend:
    """What one account of one run spent on one model.

    `calls` brought a reply, `failed` brought none. `dollars` leaves out the `unpriced` calls, whose price is unknown.
    """

    run: str
    account: str
    model: str
    calls: int = 0
    failed: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0


def hash_question(model: str, question: Question) -> str:
    """Return the SHA-256 of everything that decides a reply; the account does not."""
    sampling = question.sampling
    parts = [
        model,
        question.template_hash,
        [[message["role"], message["content"]] for message in question.messages],
        [sampling.temperature, sampling.top_p, sampling.max_tokens],
        question.json_schema,
        question.repeat,
        *(["keep cut"] if question.keep_cut else []),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def estimate_input_tokens(question: Question) -> int:
    """Return about how many tokens a question has, rather too many than too few: three bytes each."""
    return sum(len(message["content"].encode("utf-8", "replace")) // 3 + 8 for message in question.messages)
