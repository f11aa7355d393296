"""The five kinds of scenario files: their fields, where the shipped ones lie, and which kind a file is."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from comity.errors import DataError
from comity.scenarios.rows import Fields, Objects, Row, check_row, raise_first, scan_rows
from comity.scenarios.words import split_words

KindName = Literal["dilemmas", "persona-pairs", "conflict-tasks", "open-ended", "transfer"]
TIERS = ("professional", "interpersonal", "everyday")
SPLITS = ("train", "dev", "test")
SHIPPED = "shipped"
DILEMMA_FIELDS: Fields = {"id": str, "tier": TIERS, "domain": str, "dilemma": str, "split": SPLITS}
PERSONA_FIELDS: Fields = {"id": str, "tension": str, "persona_a": str, "persona_b": str}
TASK_FIELDS: Fields = {
    "id": str,
    "tier": TIERS,
    "domain": str,
    "dilemma": str,
    "persona_a": str,
    "persona_b": str,
}
QUESTION_FIELDS: Fields = {"id": str, "question": str}
CASE_FIELDS: Fields = {
    "id": str,
    "title": str,
    "situation": str,
    "stakeholders": Objects({"name": str, "interests": str}, fewest=2),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file: its fields, the field that states its matter, and those that state its personas."""

    name: KindName
    fields: Fields
    matter: str = ""
    personas: tuple[str, ...] = ()

    @property
    def shipped(self) -> Path:
        """Return the path of the shipped file."""
        return shipped_path(self.name.replace("-", "_") + ".jsonl")


KINDS = (
    Kind("dilemmas", DILEMMA_FIELDS, "dilemma"),
    Kind("persona-pairs", PERSONA_FIELDS, "", ("persona_a", "persona_b")),
    Kind("conflict-tasks", TASK_FIELDS, "dilemma", ("persona_a", "persona_b")),
    Kind("open-ended", QUESTION_FIELDS, "question"),
    Kind("transfer", CASE_FIELDS, "situation"),
)


def shipped_path(name: str) -> Path:
    """Return the path of a shipped scenario file."""
    return Path(str(resources.files(__package__).joinpath("data", name)))


def find_kind(name: str) -> Kind:
    """Return the kind of this name; raise DataError for another."""
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise DataError(f"kind {name!r} is unknown: choose among {', '.join(kind.name for kind in KINDS)}")


def detect_kind(path: Path) -> Kind:
    """Return the kind whose fields the first object of a file shares most; raise DataError when none is nearest."""
    scanned = scan_rows(path, lambda row, place: None, unique=None)
    first = next((row for row in scanned if not isinstance(row, DataError)), {})
    shares = []
    for kind in KINDS:
        wanted = set(kind.fields) - {"id"}
        shares.append(len(wanted & set(first)) / len(wanted))
    best = max(shares)
    if best < 0.5 or shares.count(best) > 1:
        has = f"fields {', '.join(map(str, first))}" if first else "no JSON object"
        names = ", ".join(kind.name for kind in KINDS)
        raise DataError(f"{path}: has {has}, which fit no kind of file; give --kind, one of {names}")
    return KINDS[shares.index(best)]


def check_scenario_row(kind: Kind, row: Row, place: str, extra: bool = True) -> None:
    """Raise DataError unless a row has the fields of its kind and its sides differ."""
    check_row(row, kind.fields, place, extra)
    if kind.personas and split_words(row["persona_a"]) == split_words(row["persona_b"]):
        raise DataError(f"{place}, field persona_b: equals persona_a; write the opposing goal")
    if kind.name == "transfer":
        names = [split_words(item["name"]) for item in row["stakeholders"]]
        for number, name in enumerate(names):
            if name in names[:number]:
                again = row["stakeholders"][number]["name"]
                raise DataError(f"{place}, field stakeholders[{number}].name: {again!r} stands twice; rename one")


def scan_kind(path: Path, kind: Kind) -> Iterator[Row | DataError]:
    """Yield each row of a file of this kind, or what is wrong with it."""
    return scan_rows(path, lambda row, place: check_scenario_row(kind, row, place))


def read_kind(source: str, name: KindName) -> list[Row]:
    """Return the rows of a file, or of the shipped file of this kind; raise DataError at the first bad row."""
    kind = find_kind(name)
    return raise_first(scan_kind(kind.shipped if source == SHIPPED else Path(source), kind))
