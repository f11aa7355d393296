"""Hand-labelled rows: answers with a Collective Agency score, round endings with agreed or not.

Shipped rows stand in `data/answers.jsonl` and `data/endings.jsonl`. A row names its dilemma by `dilemma_id`, or carries
the text itself in `dilemma`. Rows with `part` "heldout" come from another author and other dilemmas than "train".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from comity.errors import DataError
from comity.scenarios.load import load_dilemmas
from comity.scenarios.rows import Fields, Row, read_rows
from comity.types import Answer, RoundEnding

Kind = Literal["agency", "agreement"]

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
    "agency": {
        "id": str,
        "dilemma_id": str,
        "answer": str,
        "score": int,
        "author": str,
        "source": str,
        "part": ("train", "heldout"),
    },
    "agreement": {
        "id": str,
        "dilemma_id": str,
        "persona_a": str,
        "persona_b": str,
        "message_a": str,
        "message_b": str,
        "agreed": bool,
        "author": str,
        "source": str,
        "part": ("train", "heldout"),
    },
}


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
    """Return the labelled rows of a file, or the shipped ones.

    Raise DataError naming file, line, field and mend for a bad row, an unknown dilemma or a score outside 0 to 5.
    """
    path = path or shipped_labels(kind)
    dilemmas = {row["id"]: row["dilemma"] for row in load_dilemmas()}
    rows = read_rows(path, LABEL_FIELDS[kind])
    lines = [number for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if line.strip()]
    return [_to_label(kind, row, dilemmas, f"{path}, line {n}") for n, row in zip(lines, rows, strict=True)]


def to_item(kind: Kind, row: Row) -> Answer | RoundEnding:
    """Return what the judge reads of a row that has its dilemma's text; null texts count as empty."""
    if kind == "agency":
        return Answer(row["dilemma"], row["answer"] or "")
    texts = [row[name] or "" for name in ("persona_a", "persona_b", "message_a", "message_b")]
    return RoundEnding(row["dilemma"], *texts)


def _to_label(kind: Kind, row: Row, dilemmas: Mapping[str, str], place: str) -> Label:
    text = row.get("dilemma", dilemmas.get(row["dilemma_id"]))
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"{place}, field dilemma_id: {row['dilemma_id']!r} is unknown; give its text in a field dilemma"
        )
    if kind == "agency" and not 0 <= row["score"] <= 5:
        raise DataError(f"{place}, field score: is {row['score']}; give a whole number from 0 to 5")
    return Label(
        id=row["id"],
        item=to_item(kind, row | {"dilemma": text}),
        target=float(row["score"] if kind == "agency" else row["agreed"]),
        dilemma_id=row["dilemma_id"],
        part=row["part"],
        author=row["author"],
        source=row["source"],
    )
