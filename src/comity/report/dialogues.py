"""Choose dialogues to show, by rules that leave no room for picking nice ones, and lay them out for a page."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.errors import RunError
from comity.evaluation.statistics import index_dialogues
from comity.report.tables import show
from comity.runs import read_negotiations

Row = Mapping[str, Any]
"""One dialogue as `runs.negotiation_row` writes it."""


@dataclass(frozen=True, slots=True)
class Round:
    """The messages of one round, `[{seat, text, finish}]`, and the judge's word after it (None before its word)."""

    number: int
    messages: tuple[Row, ...]
    check: Row | None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One dialogue for a page: its heading (`before`, `after`, `step 12`), its row and its rounds."""

    heading: str
    row: Row
    rounds: tuple[Round, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """Dialogues about one scenario, and the rule by which it was chosen."""

    title: str
    rule: str
    dialogues: tuple[Dialogue, ...]


def read_dialogues(path: Path) -> list[dict[str, Any]]:
    """Return the rows of one file, [] when it is absent; raise RunError when it is damaged."""
    if not path.exists():
        return []
    try:
        return read_negotiations(path)
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error}); delete it and run the evaluation again") from error


def choose_pairs(before: Sequence[Row], after: Sequence[Row]) -> list[Example]:
    """Return up to four scenarios before and after: largest gain, median change, largest loss, one by fixed hash.

    Among equal changes the order is that of a hash of scenario and sample, so neither text nor outcome chooses.
    """
    first, second = index_dialogues(before), index_dialogues(after)
    keys = sorted(first.keys() & second.keys(), key=_lot)
    changes = {
        key: second[key]["reward"] - first[key]["reward"]
        for key in keys
        if first[key]["reward"] is not None and second[key]["reward"] is not None
    }
    ranked = sorted(changes, key=lambda key: changes[key])
    wanted: list[tuple[str, list[tuple[str, int]]]] = []
    if ranked:
        middle = sorted(ranked, key=lambda key: abs(ranked.index(key) - (len(ranked) - 1) // 2))
        best, worst = changes[ranked[-1]], changes[ranked[0]]
        wanted.append(("Largest gain in reward" if best > 0 else "Smallest loss (no dialogue gained)", ranked[::-1]))
        wanted.append(("Median change", middle))
        wanted.append(("Largest loss in reward" if worst < 0 else "Smallest gain (no dialogue lost)", ranked))
    wanted.append(("Drawn by lot", keys))
    examples, used = [], set[str]()
    for title, candidates in wanted:
        key = next((key for key in candidates if key[0] not in used), None)
        if key is None:
            continue
        used.add(key[0])
        change = f"reward {show(changes[key], signed=True)}" if key in changes else "reward unscored"
        rule = f"{key[0]}, sample {key[1] + 1}, {change}, among {len(keys)} pairs"
        pair = (lay_out(first[key], "before"), lay_out(second[key], "after"))
        examples.append(Example(title, rule, pair))
    return examples


def choose_training(run: Path) -> list[Example]:
    """Return one dialogue each of the first, the middle and the last step, drawn by a fixed hash."""
    paths = sorted((run / "negotiations").glob("step-*.jsonl"))
    if not paths:
        return []
    examples = []
    places = {"Early": 0, "Middle": len(paths) // 2, "Late": len(paths) - 1}
    for title, place in {index: (title, index) for title, index in places.items()}.values():
        rows = read_dialogues(paths[place])
        if rows:
            row = min(rows, key=lambda row: _lot((row["scenario"], row["sample"])))
            step = int(paths[place].stem.removeprefix("step-"))
            rule = f"{row['scenario']}, drawn by lot among the {len(rows)} dialogues of step {step}"
            examples.append(Example(title, rule, (lay_out(row, f"step {step}"),)))
    return examples


def lay_out(row: Row, heading: str) -> Dialogue:
    """Return a dialogue with its messages grouped by round, each with the judge's word."""
    messages = row["messages"]
    checks = {check["round"]: check for check in row["checks"]}
    rounds = tuple(
        Round(start // 2 + 1, tuple(messages[start : start + 2]), checks.get(start // 2 + 1))
        for start in range(0, len(messages), 2)
    )
    return Dialogue(heading, row, rounds)


def _lot(key: tuple[str, int]) -> str:
    return hashlib.sha256(f"{key[0]}|{key[1]}".encode()).hexdigest()
