"""Evaluation tasks as scenarios: conflict tasks, open-ended questions and transfer cases; all are held out (`test`)."""

import itertools
from pathlib import Path
from typing import Literal

from comity.errors import DataError
from comity.scenarios.load import shipped_path
from comity.scenarios.rows import Fields, Row, check_row, read_rows
from comity.types import Persona, Scenario

Pairing = Literal["all", "first"]
TASK_FIELDS: Fields = {
    "id": str,
    "tier": ("professional", "interpersonal", "everyday"),
    "domain": str,
    "dilemma": str,
    "persona_a": str,
    "persona_b": str,
}
QUESTION_FIELDS: Fields = {"id": str, "question": str}
CASE_FIELDS: Fields = {"id": str, "title": str, "situation": str, "stakeholders": list}
STAKEHOLDER_FIELDS: Fields = {"name": str, "interests": str}
TASK_KINDS: dict[str, Fields] = {
    "conflict-tasks": TASK_FIELDS,
    "open-ended": QUESTION_FIELDS,
    "transfer": CASE_FIELDS,
}


def load_task_scenarios(source: str, pairing: Pairing = "all") -> list[Scenario]:
    """Return the scenarios of a shipped kind of task (conflict-tasks, open-ended, transfer) or of a JSONL file of one.

    Raise DataError for a bad row and for a file that holds no tasks.
    """
    path = shipped_path(source.replace("-", "_") + ".jsonl") if source in TASK_KINDS else Path(source)
    first = read_rows(path, {"id": str})[0]
    kind = source if source in TASK_KINDS else _detect_kind(path, first)
    rows = read_rows(path, TASK_KINDS[kind])
    if kind == "conflict-tasks":
        return [_make_conflict(row) for row in rows]
    if kind == "open-ended":
        return [Scenario(row["id"], row["question"], None, (), "test") for row in rows]
    return [scenario for row in rows for scenario in _make_cases(row, path, pairing)]


def _detect_kind(path: Path, row: Row) -> str:
    marks = {"dilemma": "conflict-tasks", "question": "open-ended", "situation": "transfer"}
    for mark, kind in marks.items():
        if mark in row:
            return kind
    raise DataError(f"{path}: its first row has none of {', '.join(marks)}; give a file of {', '.join(TASK_KINDS)}")


def _make_conflict(row: Row) -> Scenario:
    return Scenario(
        id=row["id"],
        dilemma=row["dilemma"],
        tier=row["tier"],
        personas=tuple(Persona(f"{row['id']}{side}", row[f"persona_{side}"]) for side in "ab"),
        split="test",
        domain=row["domain"],
    )


def _make_cases(row: Row, path: Path, pairing: Pairing) -> list[Scenario]:
    place = f"{path}, id {row['id']}, field stakeholders"
    parties = list(enumerate(row["stakeholders"], 1))
    if len(parties) < 2:
        raise DataError(f"{place}: has {len(parties)} parties; name two or more")
    for number, party in parties:
        if not isinstance(party, dict):
            raise DataError(f"{place}: number {number} is {party!r}; write an object with name and interests")
        check_row(party, STAKEHOLDER_FIELDS, f"{place}, number {number}")
    meetings = list(itertools.combinations(parties, 2))
    return [_make_meeting(row, parties, seats) for seats in (meetings if pairing == "all" else meetings[:1])]


def _make_meeting(row: Row, parties: list[tuple[int, Row]], seats: tuple[tuple[int, Row], ...]) -> Scenario:
    # A dialogue has two seats: what the absent ones want stands in the dilemma, so that the answer can serve them.
    absent = [f"{party['name']}: {party['interests']}" for number, party in parties if (number, party) not in seats]
    personas = (
        Persona(f"{row['id']}/{number}", f"You speak for {party['name']}. {party['interests']}")
        for number, party in seats
    )
    return Scenario(
        id=f"{row['id']}/{seats[0][0]}-{seats[1][0]}",
        dilemma=" ".join([row["situation"], *(["Not at the table:", *absent] if absent else [])]),
        tier=None,
        personas=tuple(personas),
        split="test",
        domain=row["title"],
    )
