"""CaSiNo as an outside check of an agreement judge: human negotiations over camping supplies (Chawla et al. 2021).

The data are not shipped. A dialogue with an accepted deal gives one ending that should count as agreed, the last two
messages before the deal was entered, and one that should not, two messages midway. The labels are rough: many people
chat on after they have agreed, so the last two messages often hold no plan.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.errors import DataError
from comity.types import RoundEnding

DILEMMA = "Two campers must divide three packages each of food, water and firewood between them for the days ahead."
PERSONA = "You want the supplies that matter most to you."
FEWEST_MESSAGES = 6
_BUTTONS = frozenset({"Submit-Deal", "Accept-Deal", "Reject-Deal", "Walk-Away"})


@dataclass(frozen=True, slots=True)
class CasinoEnding:
    """One ending of a human dialogue; `agreed` is its rough label."""

    dialogue: str
    ending: RoundEnding
    agreed: bool


def read_casino(path: Path) -> list[CasinoEnding]:
    """Return endings with their labels from a CaSiNo JSON file; raise DataError when it is none."""
    try:
        dialogues = json.loads(path.read_text(encoding="utf-8"))
        logs = {
            str(dialogue["dialogue_id"]): [(entry["id"], entry["text"]) for entry in dialogue["chat_logs"]]
            for dialogue in dialogues
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not a CaSiNo file ({error}); give casino_valid.json or the like") from error
    labelled = []
    for name, log in logs.items():
        messages = _messages_before_deal(log)
        if len(messages) < FEWEST_MESSAGES:
            continue
        for said, agreed in ((messages, True), (messages[: round(len(messages) / 2)], False)):
            ending = _latest_of_each(said)
            if ending is not None:
                labelled.append(CasinoEnding(name, ending, agreed))
    if not labelled:
        raise DataError(f"{path}: has no dialogue with an accepted deal; give casino_valid.json or the like")
    return labelled


def _messages_before_deal(log: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    accepted = [i for i, (_, text) in enumerate(log) if text == "Accept-Deal"]
    submitted = [i for i, (_, text) in enumerate(log) if text == "Submit-Deal" and accepted and i < accepted[-1]]
    return [(who, text) for who, text in log[: submitted[-1]] if text not in _BUTTONS] if submitted else []


def _latest_of_each(messages: Sequence[tuple[str, Any]]) -> RoundEnding | None:
    speaker, message_b = messages[-1]
    message_a = next((text for who, text in reversed(messages[:-1]) if who != speaker), None)
    return None if message_a is None else RoundEnding(DILEMMA, PERSONA, PERSONA, message_a, message_b)
