"""One negotiation laid out for a page: rounds, what each seat saw, what carries loss, its tokens."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.config import NegotiationConfig, OptimizationConfig, build
from comity.errors import ComityError
from comity.negotiation.protocol import pending, seat_messages, start
from comity.runs import read_json
from comity.training.samples import answer_carries_loss, message_carries_loss
from comity.types import Completion, Message, Negotiation, Persona, Request, Scenario, Turn
from comity.viewer.library import read_settings
from comity.viewer.tokens import Token, has_change, list_tokens

SEAT_NAMES = "ABCDEFGH"
TEXTS = ("scenario", "dilemma", "tier", "domain", "ending", "completion")
NUMBERS = ("sample", "rounds", "reward", "score", "uncertainty", "heldout_score", "advantage")
LISTS = ("personas", "messages", "checks", "reasons")
KNOWN = {*TEXTS, *NUMBERS, *LISTS, "heldout_agreed", "completion_sampled"}
"""Fields of a row that the page shows at a place of their own; others are listed below it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that a negotiation was played and trained with; None where they are not known."""

    negotiation: NegotiationConfig | None = None
    optimization: OptimizationConfig | None = None


@dataclass(frozen=True, slots=True)
class Speech:
    """A message or the joint answer; `trained` is None where settings do not say whether it carries loss."""

    seat: int
    name: str
    text: str
    cut_off: bool
    token_count: int
    seen: tuple[Message, ...]
    trained: bool | None
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """The messages of one round and the judge's word after it, None before its word."""

    number: int
    speeches: tuple[Speech, ...]
    check: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One negotiation for a page: its row, rounds, joint answer, and fields that have no place of their own."""

    row: Mapping[str, Any]
    rounds: tuple[Round, ...]
    answer: Speech | None
    extra: Mapping[str, Any]

    @property
    def has_tokens(self) -> bool:
        """Tell whether token data is stored."""
        speeches = [speech for item in self.rounds for speech in item.speeches]
        return any(speech.tokens for speech in [*speeches, *([self.answer] if self.answer else [])])

    @property
    def has_changes(self) -> bool:
        """Tell whether the log-probabilities after the step are stored too."""
        stored = [message.get("sampled") for message in self.row["messages"]]
        return any(map(has_change, [*stored, self.row["completion_sampled"]]))


def read_rules(run: Path, part: str) -> Rules:
    """Return the rules of a run's part; None for what is missing or was written by another version."""
    settings: Mapping[str, Any] = {}
    try:
        settings = read_settings(run)
        for folder in (run / "evaluation", run):
            path = next((p for p in folder.glob("*.settings.json") if p.name == f"{part}.settings.json"), None)
            if path is not None:
                settings = read_json(path)["settings"]
            elif "," in part and (folder / "settings.json").exists():
                settings = _unfold(read_json(folder / "settings.json")["settings"])
    except (ComityError, KeyError, TypeError):
        settings = {}
    return Rules(
        _build(NegotiationConfig, settings.get("negotiation"), "negotiation."),
        _build(OptimizationConfig, settings.get("optimization"), "optimization.") if part == "train" else None,
    )


def _unfold(settings: Mapping[str, Any]) -> dict[str, Any]:
    # A comparison of models writes `negotiation.rounds` and so on side by side.
    rules = {name.removeprefix("negotiation."): value for name, value in settings.items() if "negotiation." in name}
    return {"negotiation": rules}


def lay_out(row: Mapping[str, Any], rules: Rules) -> Dialogue:
    """Return a stored row laid out; what is of a wrong type counts as unknown."""
    extra = {key: value for key, value in row.items() if key not in KNOWN}
    row = _clean(row)
    messages = row["messages"]
    if any(_seat_of(message) > 1 for message in messages):
        rules = Rules(None, rules.optimization)  # the protocol knows two seats: what others saw cannot be said
    negotiation = restore_negotiation(row, messages)
    speeches = [_speech(row, message, negotiation, place, rules) for place, message in enumerate(messages)]
    checks = {check["round"]: check for check in row["checks"]}
    rounds = tuple(
        Round(first // 2 + 1, tuple(speeches[first : first + 2]), checks.get(first // 2 + 1))
        for first in range(0, len(speeches), 2)
    )
    return Dialogue(row, rounds, _answer(row, negotiation, rules), extra)


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    # Every known field, so that a page never asks for one that a row lacks.
    clean: dict[str, Any] = {name: row.get(name) if isinstance(row.get(name), str) else None for name in TEXTS}
    clean |= {name: row.get(name) if _is_number(row.get(name)) else None for name in NUMBERS}
    clean |= {name: list(row[name]) if isinstance(row.get(name), list) else [] for name in LISTS}
    clean["messages"] = [item for item in clean["messages"] if isinstance(item, dict)]
    blank = {"round": None, "agreed": None, "probability": None, "reason": ""}
    clean["checks"] = [blank | item for item in clean["checks"] if isinstance(item, dict)]
    for check in clean["checks"]:
        check["probability"] = check["probability"] if _is_number(check["probability"]) else None
    return clean | {"heldout_agreed": row.get("heldout_agreed"), "completion_sampled": row.get("completion_sampled")}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def restore_negotiation(row: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Negotiation:
    """Return the negotiation of a stored row, without tokens, checks and joint answer, as if it still went on."""
    personas = tuple(Persona(SEAT_NAMES[place % 8], str(text)) for place, text in enumerate(row["personas"]))
    scenario = Scenario(row["scenario"] or "", row["dilemma"] or "", "everyday", personas, "test")
    turns = tuple(Turn(_seat_of(item), Completion(str(item.get("text", "")))) for item in messages)
    return Negotiation(scenario, turns=turns)


def _build(kind: type[Any], values: object, prefix: str) -> Any:
    if not isinstance(values, dict):
        return None
    try:
        return build(kind, values, prefix)
    except ComityError:
        return None


def _seat_of(message: Mapping[str, Any]) -> int:
    seat = message.get("seat")
    return seat if isinstance(seat, int) and 0 <= seat < len(SEAT_NAMES) else 0


def _speech(
    row: Mapping[str, Any], message: Mapping[str, Any], negotiation: Negotiation, place: int, rules: Rules
) -> Speech:
    seat, solo = _seat_of(message), len(negotiation.scenario.personas) < 2
    trained = None
    if rules.optimization is not None:
        trained = _is_scored(row) and message_carries_loss(seat, solo, rules.optimization)
    return Speech(
        seat=seat,
        name=SEAT_NAMES[seat],
        text=str(message.get("text", "")),
        cut_off=message.get("finish") == "length",
        token_count=message["tokens"] if isinstance(message.get("tokens"), int) else 0,
        seen=_window(negotiation, place, seat, rules),
        trained=trained,
        tokens=list_tokens(message.get("sampled"), trained, row.get("advantage")),
    )


def _answer(row: Mapping[str, Any], negotiation: Negotiation, rules: Rules) -> Speech | None:
    if not row.get("completion"):
        return None
    solo = len(negotiation.scenario.personas) < 2
    trained = None
    if rules.optimization is not None:
        trained = _is_scored(row) and answer_carries_loss(solo, rules.optimization)
    seen: tuple[Message, ...] = ()
    if rules.negotiation is not None and not solo:
        awaited = pending(dataclasses.replace(negotiation, ending="agreed"), rules.negotiation)
        assert isinstance(awaited, Request)
        seen = awaited.messages
    tokens = list_tokens(row.get("completion_sampled"), trained, row.get("advantage"))
    return Speech(0, "Joint answer", str(row["completion"]), False, len(tokens), seen, trained, tokens)


def _is_scored(row: Mapping[str, Any]) -> bool:
    return row.get("reward") is not None and row.get("advantage") is not None


def _window(negotiation: Negotiation, place: int, seat: int, rules: Rules) -> tuple[Message, ...]:
    if rules.negotiation is None:
        return ()
    before = dataclasses.replace(negotiation, turns=negotiation.turns[:place])
    if len(negotiation.scenario.personas) < 2:
        awaited = pending(start(negotiation.scenario), rules.negotiation)
        return awaited.messages if isinstance(awaited, Request) else ()
    return seat_messages(before, seat, rules.negotiation) if seat < len(negotiation.scenario.personas) else ()
