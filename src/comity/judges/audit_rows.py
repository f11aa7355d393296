"""What an audit reads: rows that were judged, and the verdicts of several raters on them.

Rows are answers or round endings as `comity judge score` takes them, labelled rows, or dialogues as a run writes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from comity.errors import DataError
from comity.judges.audit_statistics import Array, Values, to_levels
from comity.judges.labels import ITEM_FIELDS, Kind, shipped_labels, to_item
from comity.scenarios.load import load_dilemmas
from comity.scenarios.rows import Row, check_row, read_rows
from comity.types import Answer, RoundEnding

Role = Literal["judge", "labels", "human"]
VERDICT_FIELDS: dict[Kind, str] = {"agency": "score", "agreement": "agreed"}
TRANSCRIPT_COLUMNS: dict[Kind, tuple[tuple[str, str], ...]] = {
    "agency": (("training", "score"), ("held-out", "heldout_score")),
    "agreement": (("training", "agreed"), ("held-out", "heldout_agreed")),
}
"""The judges whose verdicts a dialogue of a run carries, with the field of each."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row that is judged, with all fields of its file."""

    id: str
    item: Answer | RoundEnding
    fields: Row

    @property
    def words(self) -> int:
        """Return the words of the answer, or of both messages."""
        if isinstance(self.item, Answer):
            return len(self.item.answer.split())
        return len(self.item.message_a.split()) + len(self.item.message_b.split())


@dataclass(frozen=True, slots=True)
class Rater:
    """Who gave one value a row (None: unscored): a judge, the labels of the rows, or human readers.

    `repeats` holds all verdicts of each row, the first included, where a row was judged or rated several times.
    """

    name: str
    role: Role
    values: tuple[float | None, ...]
    repeats: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class AuditTable:
    """The rows of an audit and its raters, aligned."""

    kind: Kind
    rows: tuple[AuditRow, ...]
    raters: tuple[Rater, ...]

    @property
    def clusters(self) -> list[str]:
        """Return the dilemma of each row."""
        return [row.item.dilemma for row in self.rows]


def read_audit_rows(kind: Kind, path: Path | None = None) -> list[AuditRow]:
    """Return the rows of a file or of a folder's JSONL files, or the shipped held-out rows; raise DataError if bad.

    A row with a `repeat` is another verdict on the row of the same id and is left out here. So is a dialogue without
    an answer, or for agreement one with a single seat.
    """
    source = path or shipped_labels(kind)
    files = sorted(source.glob("*.jsonl")) if source.is_dir() else [source]
    dilemmas = {row["id"]: row["dilemma"] for row in load_dilemmas()}
    found: dict[str, AuditRow] = {}
    for file in files:
        for number, fields in enumerate(read_rows(file, {}, unique=None), 1):
            if path is None and fields["part"] != "heldout":
                continue
            row = _to_audit_row(kind, fields, dilemmas, f"{file}, row {number}")
            if row is None:
                continue
            if source.is_dir():
                # A scenario may come again in another step of a run.
                row = replace(row, id=f"{file.stem}/{row.id}")
            if row.id in found and "repeat" in fields:
                continue
            if row.id in found:
                raise DataError(f"{file}, row {number}, field id: {row.id!r} stands twice; rename one, or add a repeat")
            found[row.id] = row
    if not found:
        raise DataError(f"{source}: has nothing to judge for {kind}; give rows with an answer or with two messages")
    return list(found.values())


def read_column(kind: Kind, rows: Sequence[AuditRow], field: str, name: str, role: Role) -> Rater:
    """Return the rater whose values stand in a field of the rows; a list there holds several ratings of the row.

    Several ratings count by their mean, for agreement by their majority (a tie is unscored). Raise DataError when no
    row has the field or a value is off the scale.
    """
    if not any(field in row.fields for row in rows):
        raise DataError(f"field {field!r}, named for {name}, is in no row: name a field that the rows have")
    several = []
    for row in rows:
        given = row.fields.get(field)
        ratings = given if isinstance(given, list) else [given]
        several.append(tuple(_to_value(kind, value, f"row {row.id!r}, field {field}") for value in ratings))
    repeats = tuple(several) if any(len(values) > 1 for values in several) else ()
    return Rater(name, role, tuple(_combine(kind, values) for values in several), repeats)


def read_verdicts(kind: Kind, rows: Sequence[AuditRow], name: str, paths: Sequence[Path]) -> Rater:
    """Return a judge's verdicts from files of `comity judge score`, joined to the rows by id.

    Several files, or rows of one id told apart by `repeat`, are repeated verdicts; the first one counts. Rows that the
    files lack are unscored. Raise DataError when the files know none of the rows.
    """
    field = VERDICT_FIELDS[kind]
    found: dict[str, list[float | None]] = {}
    for path in paths:
        judged = read_rows(path, {"id": str}, unique=None)
        if any("repeat" in row for row in judged):
            judged = sorted(judged, key=lambda row: _read_repeat(row, path))
        for row in judged:
            if field not in row:
                raise DataError(f"{path}, row {row['id']!r}, field {field}: is missing; give a file of `judge score`")
            place = f"{path}, row {row['id']!r}, field {field}"
            found.setdefault(row["id"], []).append(_to_value(kind, row[field], place))
    if not any(row.id in found for row in rows):
        raise DataError(f"{paths[0]}: has none of the rows' ids; give verdicts on the same rows")
    several = tuple(tuple(found.get(row.id, [None])) for row in rows)
    repeats = several if any(len(values) > 1 for values in several) else ()
    return Rater(name, "judge", tuple(values[0] for values in several), repeats)


def choose_balanced(values: Values, per_level: int, seed: int) -> list[int]:
    """Return the places of at most `per_level` rows of each whole score, drawn with the seed; unscored ones are out."""
    scored = [place for place, value in enumerate(values) if value is not None]
    levels: Array = to_levels(np.array([values[place] for place in scored], float))
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for level in np.unique(levels):
        places = [scored[i] for i in np.flatnonzero(levels == level)]
        chosen.extend(places[i] for i in rng.permutation(len(places))[:per_level])
    return sorted(chosen)


def take_rows(table: AuditTable, places: Sequence[int]) -> AuditTable:
    """Return the table with only the rows at these places."""
    raters = [
        replace(
            rater,
            values=tuple(rater.values[i] for i in places),
            repeats=tuple(rater.repeats[i] for i in places) if rater.repeats else (),
        )
        for rater in table.raters
    ]
    return replace(table, rows=tuple(table.rows[i] for i in places), raters=tuple(raters))


def _to_audit_row(kind: Kind, fields: Row, dilemmas: Mapping[str, str], place: str) -> AuditRow | None:
    if "messages" in fields and "personas" in fields:
        return _from_dialogue(kind, fields, place)
    fields = {"dilemma": dilemmas.get(str(fields.get("dilemma_id"))), **fields}
    if fields["dilemma"] is None:
        del fields["dilemma"]
    check_row(fields, ITEM_FIELDS[kind], place)
    return AuditRow(fields["id"], to_item(kind, fields), fields)


def _from_dialogue(kind: Kind, fields: Row, place: str) -> AuditRow | None:
    wanted = {"scenario": str, "dilemma": str, "sample": int, "personas": list, "messages": list, "completion?": str}
    check_row(fields, wanted, place)
    name = f"{fields['scenario']}#{fields['sample']}"
    if kind == "agency":
        answer = fields["completion"]
        return None if answer is None else AuditRow(name, Answer(fields["dilemma"], answer), fields)
    if len(fields["personas"]) < 2:
        return None
    for message in fields["messages"]:
        if not isinstance(message, dict):
            raise DataError(f"{place}, field messages: holds {message!r}; expected objects with seat and text")
        check_row(message, {"seat": int, "text": str}, f"{place}, field messages")
    latest = {message["seat"]: message["text"] for message in fields["messages"]}
    goals = [str(goal) for goal in fields["personas"]]
    ending = RoundEnding(fields["dilemma"], goals[0], goals[1], latest.get(0, ""), latest.get(1, ""))
    agreed = {"agreed": True, "no_agreement": False}.get(fields.get("ending", ""))
    return AuditRow(name, ending, {**fields, "agreed": agreed})


def _to_value(kind: Kind, value: object, place: str) -> float | None:
    if value is None:
        return None
    if kind == "agreement":
        if not isinstance(value, bool):
            raise DataError(f"{place}: is {value!r}; expected true, false or null")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 5:
        raise DataError(f"{place}: is {value!r}; expected a number from 0 to 5, or null")
    return float(value)


def _combine(kind: Kind, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    if kind == "agency":
        return mean
    return None if mean == 0.5 else float(mean > 0.5)


def _read_repeat(row: Row, path: Path) -> int:
    repeat = row.get("repeat", 0)
    if isinstance(repeat, bool) or not isinstance(repeat, int):
        raise DataError(f"{path}, row {row['id']!r}, field repeat: is {repeat!r}; expected a whole number")
    return repeat
