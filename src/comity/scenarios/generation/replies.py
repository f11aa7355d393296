"""A model's reply as a checked row, or what is wrong with it in words that the model can mend."""

from dataclasses import dataclass
from typing import Any

from comity.errors import DataError
from comity.prompts import neutralise
from comity.prompts.objects import parse_object
from comity.scenarios.generation.plan import Slot
from comity.scenarios.hygiene import SimilarTexts, collect_texts, make_shingles
from comity.scenarios.kinds import Kind, KindName, check_scenario_row
from comity.scenarios.rows import Row
from comity.scenarios.words import split_words

WRITTEN: dict[KindName, tuple[str, ...]] = {
    "dilemmas": ("dilemma",),
    "persona-pairs": ("tension", "persona_a", "persona_b"),
    "conflict-tasks": ("dilemma", "persona_a", "persona_b"),
}
"""The fields that the model writes; the slot fixes the others."""
LENGTHS = {"dilemma": (25, 80), "persona_a": (10, 40), "persona_b": (10, 40), "tension": (2, 12)}
"""Fewest and most words of a field; the prompts ask for less than the most and more than the fewest."""

MOST_COPIED = 0.3
"""Share of a text's word 3-grams that may stand in the prompt."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One reply of a slot and what is wrong with it; `text=None` when none came."""

    text: str | None
    error: str


def make_schema(kind: KindName) -> dict[str, Any]:
    """Return the JSON schema of a reply."""
    fields = WRITTEN[kind]
    return {
        "type": "object",
        "properties": {field: {"type": "string"} for field in fields},
        "required": list(fields),
        "additionalProperties": False,
    }


def read_reply(kind: Kind, slot: Slot, text: str, source: str) -> tuple[Row | None, str]:
    """Return the slot's row with the model's texts in it, or None and what is wrong."""
    fields = WRITTEN[kind.name]
    found, problem = parse_object(text)
    if "{" not in text and len(fields) == 1:
        found = {fields[0]: text}  # a model that no schema holds often writes the one text alone
    if found is None:
        return None, problem
    if set(found) != set(fields):
        has = ", ".join(sorted(map(str, found))) or "none"
        return None, f"its fields are {has}; they must be {', '.join(fields)}"
    written: dict[str, str] = {}
    for field in fields:
        value = found[field]
        if not isinstance(value, str):
            return None, f"{field} is no text"
        written[field] = " ".join(neutralise(value).split())
        problem = _find_fault(field, written[field])
        if problem:
            return None, f"{field} {problem}"
        if _share_copied(written[field], slot.prompt) > MOST_COPIED:
            return None, f"{field} repeats the words of the request; write your own"
    values = {**slot.fixed, **written}
    row = {field: values[field] for field in kind.fields} | {"source": source}
    try:
        check_scenario_row(kind, row, "the reply")
    except DataError as error:
        return None, str(error)
    return row, ""


def find_double(kind: Kind, row: Row, known: SimilarTexts) -> str:
    """Return which known text a row repeats, in words, or nothing; a row that repeats none becomes known."""
    texts = collect_texts("generated", kind, [row])
    for text in texts:
        pairs = known.find(text)
        if pairs:
            likest = max(pairs, key=lambda pair: pair.similarity)
            return (
                f"{text.field} is too near to one that exists ({likest.first.place}); write another story and wording"
            )
    for text in texts:
        known.add(text)
    return ""


def _share_copied(text: str, prompt: str) -> float:
    asked = make_shingles(" ".join(split_words(prompt)))
    grams = make_shingles(" ".join(split_words(text)))
    return len(grams & asked) / len(grams)


def _find_fault(field: str, text: str) -> str:
    fewest, most = LENGTHS[field]
    words = len(split_words(text))
    if not fewest <= words <= most:
        return f"has {words} words; write {fewest} to {most}"
    if field != "tension" and text[-1] not in ".!\"'”’)":
        return "does not end with a full stop"
    if field.startswith("persona") and not text.startswith("You"):
        return 'does not begin with "You"'
    return ""
