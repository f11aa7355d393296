"""A model behind an address as a player: it speaks for a seat and writes answers like a local one."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from comity.access import ModelAccess, Question, Reply
from comity.access.provider import PROVIDERS
from comity.types import Completion, Request, Responder

PLAYED = hashlib.sha256(b"messages of the protocol, as they stand").hexdigest()
"""In place of a template's hash: the messages themselves are all that is asked."""


def is_served(name: str) -> bool:
    """Tell whether a model's name is Inspect's PROVIDER/MODEL and no folder."""
    return "/" in name and name.split("/")[0] in PROVIDERS and not Path(name).is_dir()


def build_served_player(access: ModelAccess) -> Responder:
    """Return a responder that asks an open model; a reply that never came ends its dialogue as failed.

    The seed tells several runs of one prompt apart: each is asked and paid for once, also after a stop.
    """

    def respond(requests: Sequence[Request]) -> list[Completion]:
        questions = [
            Question(item.messages, item.sampling, PLAYED, f"play/{item.target}", repeat=item.seed, keep_cut=True)
            for item in requests
        ]
        return [_to_completion(reply) for reply in (access.ask(questions) if questions else [])]

    return respond


def _to_completion(reply: Reply) -> Completion:
    if reply.text is None:
        return Completion("", finish="error")
    return Completion(reply.text.strip(), finish="length" if reply.problem else "stop")
