"""Questions to the index: a page of negotiations that match a filter, one of them, a group, pairs of two parts."""

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

Sort = Literal["step", "scenario", "reward", "score", "heldout_score", "advantage", "rounds", "words"]
SORTS: tuple[Sort, ...] = get_args(Sort)
PAGE_ROWS = 50
SHORTEST_PREFIX = 3
"""Letters before a *: fewer match thousands of words, which takes longer than anybody waits."""
ORDERS: dict[Sort, str] = {"step": "step {0}, place {0}", "scenario": "scenario {0}, step {0}, sample {0}"}
"""Columns to sort by where it is not just the named one."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted; None and empty texts leave a condition out. `text` words must all occur, quoted ones together.

    `ending` is an ending, or `unscored` for negotiations without a reward.
    """

    part: str = "train"
    step_from: int | None = None
    step_to: int | None = None
    scenario: str = ""
    tier: str = ""
    ending: str = ""
    reward_from: float | None = None
    reward_to: float | None = None
    score_from: float | None = None
    score_to: float | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One negotiation as the index knows it; `path`, `start` and `size` are its place in the run's files."""

    path: str
    part: str
    step: int
    place: int
    start: int
    size: int
    scenario: str
    sample: int
    ending: str
    rounds: float | None
    reward: float | None
    score: float | None
    heldout_score: float | None
    advantage: float | None
    words: int


LOOKED_UP = {
    "path": "(SELECT path FROM files WHERE id = {0}file)",
    "part": "(SELECT name FROM names WHERE id = {0}part)",
    "ending": "(SELECT name FROM names WHERE id = {0}ending)",
}
"""Fields that the table holds as numbers."""
NAMES = tuple(field.name for field in fields(Record))
NUMBER = "(SELECT id FROM names WHERE name = ?)"


def _columns(side: str = "") -> str:
    return ", ".join(LOOKED_UP.get(name, f"{{0}}{name}").format(side) for name in NAMES)


SELECT = f"SELECT {_columns()} FROM negotiations"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of matches; `number` counts from 1."""

    records: tuple[Record, ...]
    total: int
    number: int
    pages: int


def find_page(
    connection: sqlite3.Connection, wanted: Filter, sort: Sort = "step", descending: bool = False, number: int = 1
) -> Page:
    """Return one page of the matches in order; a page beyond the last is the last."""
    where, values = _conditions(wanted)
    total = int(connection.execute(f"SELECT count(*) FROM negotiations WHERE {where}", values).fetchone()[0])
    pages = max(1, -(-total // PAGE_ROWS))
    number = min(max(1, number), pages)
    direction = "DESC" if descending else "ASC"
    # What is unscored comes last in either direction.
    order = ORDERS.get(sort, f"{sort} {{0}} NULLS LAST, id {{0}}").format(direction)
    rows = connection.execute(
        f"{SELECT} WHERE {where} ORDER BY {order} LIMIT {PAGE_ROWS} OFFSET ?", (*values, (number - 1) * PAGE_ROWS)
    )
    return Page(tuple(Record(*row) for row in rows), total, number, pages)


def find_record(connection: sqlite3.Connection, part: str, step: int, place: int) -> Record | None:
    """Return the negotiation at a place of a step's file, None when there is none."""
    row = connection.execute(
        f"{SELECT} WHERE part = {NUMBER} AND step = ? AND place = ?", (part, step, place)
    ).fetchone()
    return None if row is None else Record(*row)


def find_group(connection: sqlite3.Connection, part: str, step: int, scenario: str) -> list[Record]:
    """Return the rollouts of one scenario in one step, in the order of their samples."""
    query = f"{SELECT} WHERE part = {NUMBER} AND scenario = ? AND step = ? ORDER BY sample, place"
    return [Record(*row) for row in connection.execute(query, (part, scenario, step))]


def find_pairs(connection: sqlite3.Connection, before: str, after: str) -> list[tuple[Record, Record]]:
    """Return the negotiations of two parts that share scenario and sample, the largest gain in reward first."""
    rows = connection.execute(
        f"SELECT {_columns('a.')}, {_columns('b.')} FROM negotiations a JOIN negotiations b "
        f"ON b.part = {NUMBER} AND b.scenario = a.scenario AND b.sample = a.sample WHERE a.part = {NUMBER} "
        "ORDER BY b.reward - a.reward DESC NULLS LAST, a.place",
        (after, before),
    )
    return [(Record(*row[: len(NAMES)]), Record(*row[len(NAMES) :])) for row in rows]


def find_nth(connection: sqlite3.Connection, part: str, number: int) -> Record | None:
    """Return a negotiation of a part by its number in the order of steps and places, counted from 0."""
    query = f"{SELECT} WHERE part = {NUMBER} ORDER BY step, place LIMIT 1 OFFSET ?"
    row = connection.execute(query, (part, number)).fetchone()
    return None if row is None else Record(*row)


def list_records(connection: sqlite3.Connection, part: str) -> list[Record]:
    """Return all negotiations of a part."""
    return [Record(*row) for row in connection.execute(f"{SELECT} WHERE part = {NUMBER}", (part,))]


def list_parts(connection: sqlite3.Connection) -> list[str]:
    """Return the parts that a run has negotiations of, training first."""
    found = [row[0] for row in connection.execute("SELECT name FROM names WHERE id IN (SELECT part FROM parts)")]
    order = {"train": 0, "before": 1, "after": 2}
    return sorted(found, key=lambda part: (order.get(part, 3), part))


def match_expression(text: str) -> str:
    """Return a search as the full-text index takes it, empty when it has no word: every word, quoted ones in a row.

    Whatever is typed is quoted, so that no sign of it is read as an operator; a word of three letters and more that
    ends in * is a beginning.
    """
    parts = []
    for quoted, word in re.findall(r'"([^"]*)"|([^\s"]+)', text):
        words = (quoted or word).replace("\0", " ")
        if any(letter.isalnum() for letter in words):
            prefix = word.endswith("*") and len(word) > SHORTEST_PREFIX
            parts.append(f'"{words}"' + ("*" if prefix else ""))
    return " AND ".join(parts)


def search_words(text: str) -> list[str]:
    """Return the words of a search, for showing where they stand."""
    return [word for word in re.findall(r"\w+", text.casefold()) if word]


def _conditions(wanted: Filter) -> tuple[str, Sequence[object]]:
    found: list[tuple[str, object]] = [(f"part = {NUMBER}", wanted.part)]
    if wanted != Filter(wanted.part, wanted.step_from, wanted.step_to):
        # The plus keeps SQLite from walking an index and fetching row after row: reading the narrow table once is
        # faster for any condition that no index covers, and takes the same time whatever is asked for.
        found = [(f"+part = {NUMBER}", wanted.part)]
    bounds = (
        ("step >= ?", wanted.step_from), ("step <= ?", wanted.step_to),
        ("reward >= ?", wanted.reward_from), ("reward <= ?", wanted.reward_to),
        ("score >= ?", wanted.score_from), ("score <= ?", wanted.score_to),
    )  # fmt: skip
    found += [(condition, value) for condition, value in bounds if value is not None]
    if wanted.scenario:
        found.append(("instr(lower(scenario), ?) > 0", wanted.scenario.lower()))
    if wanted.tier:
        found.append((f"tier = {NUMBER}", wanted.tier))
    if wanted.ending == "unscored":
        found.append(("reward IS NULL AND ?", 1))
    elif wanted.ending:
        found.append((f"ending = {NUMBER}", wanted.ending))
    if words := match_expression(wanted.text):
        found.append(("id IN (SELECT rowid FROM texts WHERE texts MATCH ?)", words))
    return " AND ".join(condition for condition, _ in found), [value for _, value in found]
