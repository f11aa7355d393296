"""Labelled rows: answers with a Collective Agency score, round endings with agreed or not.

Shipped rows stand in `data/answers.jsonl` and `data/endings.jsonl`. A row of one's own may come from any judge or
person: what `comity judge score` writes and what `comity view` exports is read as it is. Besides the texts:

    dilemma_id, dilemma  the id of a shipped dilemma, or the dilemma's text; with both, rows of one id belong together
    score, agreed        the label; a row whose judge gave none (null) is left out
    author, source       who labelled the row and where its text comes from; `written` ones by several authors are
                         left out one author at a time when a head is fitted
    part                 `train` or `heldout`; rows without it are divided by their dilemma (`HELDOUT_SHARE`)
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from comity.errors import DataError
from comity.scenarios.load import load_dilemmas
from comity.scenarios.rows import Fields, Row, check_row, read_lines, read_rows
from comity.types import Answer, RoundEnding

Kind = Literal["agency", "agreement"]
HELDOUT_SHARE = 0.25
"""The share of dilemmas that are held out where rows do not say their part."""

ITEM_FIELDS: dict[Kind, Fields] = {
    "agency": {"id": str, "dilemma": str, "answer?": str},
    "agreement": {
        "id": str,
        "dilemma": str,
        "persona_a?": str,
        "persona_b?": str,
        "message_a?": str,
        "message_b?": str,
    },
}
LABEL_FIELDS: dict[Kind, Fields] = {
    "agency": {"id": str, "answer": str, "score?": float},
    "agreement": {
        "id": str,
        "persona_a": str,
        "persona_b": str,
        "message_a": str,
        "message_b": str,
        "agreed?": bool,
    },
}
OPTIONAL_FIELDS: Fields = {
    "dilemma_id?": str,
    "dilemma?": str,
    "author?": str,
    "source?": str,
    "part?": ("train", "heldout"),
}
"""Fields that a labelled row may have; null counts as absent."""


@dataclass(frozen=True, slots=True)
class Label:
    """One labelled row; `target` is the score 0 to 5, or 1 for agreed and 0 for not."""

    id: str
    item: Answer | RoundEnding
    target: float
    dilemma_id: str
    part: str
    author: str
    source: str


def shipped_labels(kind: Kind) -> Path:
    """Return the path of the shipped label rows."""
    name = "answers.jsonl" if kind == "agency" else "endings.jsonl"
    return Path(str(resources.files(__package__).joinpath("data", name)))


def read_labels(kind: Kind, path: Path | None = None) -> list[Label]:
    """Return the labelled rows of a file, or the shipped ones; rows whose label is null are left out.

    Raise DataError naming file, line, field and mend for a bad row, an unknown dilemma, a score outside 0 to 5, or a
    dilemma in both parts.
    """
    path = path or shipped_labels(kind)
    dilemmas = {row["id"]: row["dilemma"] for row in load_dilemmas()}
    rows = read_rows(path, LABEL_FIELDS[kind])
    lines = [number for number, _ in read_lines(path)]
    found = [_to_label(kind, row, dilemmas, f"{path}, line {n}") for n, row in zip(lines, rows, strict=True)]
    labels = [label for label in found if label is not None]
    _require_parts(path, labels)
    return labels


def count_unlabelled(kind: Kind, path: Path) -> int:
    """Return how many rows of a file have no label."""
    field = "score" if kind == "agency" else "agreed"
    return sum(row[field] is None for row in read_rows(path, LABEL_FIELDS[kind]))


def to_item(kind: Kind, row: Row) -> Answer | RoundEnding:
    """Return what the judge reads of a row that has its dilemma's text; null texts count as empty."""
    if kind == "agency":
        return Answer(row["dilemma"], row["answer"] or "")
    texts = [row[name] or "" for name in ("persona_a", "persona_b", "message_a", "message_b")]
    return RoundEnding(row["dilemma"], *texts)


def draw_part(dilemma_id: str) -> str:
    """Return the part of a row that does not say it: `heldout` for a quarter of the dilemmas, by their id alone."""
    draw = int.from_bytes(hashlib.sha256(f"part:{dilemma_id}".encode()).digest()[:4], "big") / 2**32
    return "heldout" if draw < HELDOUT_SHARE else "train"


def _to_label(kind: Kind, row: Row, dilemmas: Mapping[str, str], place: str) -> Label | None:
    known: Row = {name.rstrip("?"): None for name in OPTIONAL_FIELDS} | row
    if not known["dilemma_id"] and known["dilemma"] is None:
        raise DataError(f"{place}, field dilemma: is missing; give the dilemma's text, or the id of a shipped one")
    dilemma = known["dilemma"] if known["dilemma"] is not None else dilemmas.get(known["dilemma_id"])
    if not isinstance(dilemma, str) or not dilemma.strip():
        raise DataError(
            f"{place}, field dilemma_id: {known['dilemma_id']!r} is unknown; give its text in a field dilemma"
        )
    check_row(known, OPTIONAL_FIELDS, place)
    label = known["score" if kind == "agency" else "agreed"]
    if label is None:
        return None
    if kind == "agency" and not 0 <= label <= 5:
        raise DataError(f"{place}, field score: is {label}; give a number from 0 to 5")
    dilemma_id = known["dilemma_id"] or hashlib.sha256(dilemma.encode()).hexdigest()[:16]
    return Label(
        id=row["id"],
        item=to_item(kind, row | {"dilemma": dilemma}),
        target=float(label),
        dilemma_id=dilemma_id,
        part=known["part"] or draw_part(dilemma_id),
        author=known["author"] or "",
        source=known["source"] or "",
    )


def _require_parts(path: Path, labels: Sequence[Label]) -> None:
    parts: dict[str, str] = {}
    for label in labels:
        part = parts.setdefault(label.item.dilemma, label.part)
        if part != label.part:
            raise DataError(
                f"{path}, row {label.id!r}, field part: its dilemma stands in both parts; a held-out row needs a "
                "dilemma that no training row has"
            )
