"""Evaluation tasks as scenarios: conflict tasks, open-ended questions and transfer cases; all are held out (`test`)."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from comity.errors import DataError
from comity.scenarios.kinds import SHIPPED, KindName, detect_kind, read_kind
from comity.scenarios.rows import Row
from comity.types import Persona, Scenario

Pairing = Literal["all", "first"]
TASK_KINDS: tuple[KindName, ...] = ("conflict-tasks", "open-ended", "transfer")


def load_conflict_tasks(source: str = SHIPPED) -> list[Row]:
    """Return conflict-task rows; raise DataError for a bad row."""
    return read_kind(source, "conflict-tasks")


def load_open_questions(source: str = SHIPPED) -> list[Row]:
    """Return open-ended question rows; raise DataError for a bad row."""
    return read_kind(source, "open-ended")


def load_transfer_cases(source: str = SHIPPED) -> list[Row]:
    """Return transfer-case rows; raise DataError for a bad row."""
    return read_kind(source, "transfer")


def load_task_scenarios(source: str, pairing: Pairing = "all") -> list[Scenario]:
    """Return the scenarios of a shipped kind of task (conflict-tasks, open-ended, transfer) or of a JSONL file of one.

    Raise DataError for a bad row and for a file that holds no tasks.
    """
    name = next((kind for kind in TASK_KINDS if kind == source), None)
    path = SHIPPED if name is not None else source
    name = name or detect_kind(Path(source)).name
    if name == "conflict-tasks":
        return make_conflict_scenarios(load_conflict_tasks(path))
    if name == "open-ended":
        return make_open_scenarios(load_open_questions(path))
    if name == "transfer":
        return make_transfer_scenarios(load_transfer_cases(path), pairing)
    raise DataError(f"{source}: holds {name}, no tasks; give {', '.join(TASK_KINDS)} or a file of one of them")


def take_evenly(scenarios: Sequence[Scenario], limit: int) -> list[Scenario]:
    """Return at most `limit` scenarios at even distances, so that parts of a file stay in proportion; 0 means all."""
    count = len(scenarios)
    if limit == 0 or limit >= count:
        return list(scenarios)
    return [scenarios[place * count // limit] for place in range(limit)]


def make_conflict_scenarios(rows: Sequence[Row]) -> list[Scenario]:
    """Return one scenario a task, its personas held fixed: `persona_a` sits on seat 0 (paper, section 4)."""
    return [
        Scenario(
            id=row["id"],
            dilemma=row["dilemma"],
            tier=row["tier"],
            personas=tuple(Persona(f"{row['id']}{side}", row[f"persona_{side}"]) for side in "ab"),
            split="test",
            domain=row["domain"],
        )
        for row in rows
    ]


def make_open_scenarios(rows: Sequence[Row]) -> list[Scenario]:
    """Return one scenario a question, which one seat answers alone."""
    return [Scenario(row["id"], row["question"], None, (), "test") for row in rows]


def make_transfer_scenarios(rows: Sequence[Row], pairing: Pairing = "all") -> list[Scenario]:
    """Return one scenario for each pair of stakeholders of a case, `case-01/1-2` and so on; the first named opens.

    A dialogue has two seats. So each two stakeholders of a case meet once, and what the absent ones want stands in the
    dilemma, because a good answer serves them too; a stakeholder marked `secret` keeps it to itself. `pairing="first"`
    keeps only the two named first. Scenarios of one case are not independent: group them by the part of the id before
    the slash.
    """
    scenarios = []
    for row in rows:
        parties = list(enumerate(row["stakeholders"], 1))
        meetings = list(itertools.combinations(parties, 2))
        for seats in meetings if pairing == "all" else meetings[:1]:
            absent = [
                f"{party['name']}: {party['interests']}"
                for number, party in parties
                if (number, party) not in seats and not party.get("secret")
            ]
            personas = (
                Persona(f"{row['id']}/{number}", f"You speak for {party['name']}. {party['interests']}")
                for number, party in seats
            )
            scenarios.append(
                Scenario(
                    id=f"{row['id']}/{seats[0][0]}-{seats[1][0]}",
                    dilemma=" ".join([row["situation"], *(["Not at the table:", *absent] if absent else [])]),
                    tier=None,
                    personas=tuple(personas),
                    split="test",
                    domain=row["title"],
                )
            )
    return scenarios
