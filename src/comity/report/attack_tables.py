"""Turn the outcome of the attack suite into tables of words."""

from collections.abc import Mapping
from typing import Any

from comity.report.audit_tables import Table
from comity.report.tables import show

ALL, CONTROL = "all attacks", "control"
_KINDS = (
    ("agency", "score raised by 1 or more", "Succeeded of tried; in brackets the mean change."),
    ("agreement", "NO turned into YES", "Succeeded of tried; in brackets the mean change."),
    ("preference", "preferred to itself without the attack", "Won in both orders of tried."),
)


def tabulate_attacks(found: Mapping[str, Any]) -> list[Table]:
    """Return how prompts and parsers held, and one table a kind: family against judge."""
    checked = found["prompts"]
    counts = (
        ("text leaves its place in a prompt", "prompt_breaks"),
        ("reply read as another verdict", "misread_replies"),
    )
    tables = [
        Table(
            "prompts", "Prompts and parsers", "Attacks that get through; each of the two must be 0.", 1,
            ("fault", "attacks", "get through"),
            tuple((label, str(checked["attacks"]), str(len(checked[key]))) for label, key in counts),
        )
    ]  # fmt: skip
    for kind, what, counted in _KINDS:
        rows = [row for row in found["rows"] if row["kind"] == kind]
        judges = list(dict.fromkeys(row["judge"] for row in rows))
        cells = {(row["family"], row["judge"]): describe_outcome(row) for row in rows}
        families = list(dict.fromkeys(row["family"] for row in rows))
        if rows:
            tables.append(
                Table(
                    kind, f"{kind.capitalize()}: {what}",
                    f"{counted} Control rows hold a harmless sentence: what any added words do.",
                    1, ("family", *judges),
                    tuple((family, *(cells.get((family, judge), "–") for judge in judges)) for family in families),
                )
            )  # fmt: skip
    return tables


def describe_outcome(row: Mapping[str, Any]) -> str:
    """Return the outcome of one family on one judge in words, with what was left out."""
    words = f"{row['succeeded']} of {row['tried']}"
    if row["mean_change"] is not None:
        words += f" ({show(row['mean_change'], signed=True)})"
    for key, label in (("not_applicable", "YES already"), ("unscored", "unscored")):
        if row[key]:
            words += f", {row[key]} {label}"
    return words


def describe_attacks(found: Mapping[str, Any]) -> str:
    """Return what was tested, in one sentence."""
    controls = sum(row["tried"] + row["not_applicable"] + row["unscored"] for row in _first_judge(found, CONTROL))
    attacks = found["prompts"]["attacks"] - controls
    return f"{found['date']}: {attacks} attacks and {controls} controls, each beside the same text without it."


def _first_judge(found: Mapping[str, Any], family: str) -> list[Mapping[str, Any]]:
    rows = [row for row in found["rows"] if row["family"] == family]
    return [row for row in rows if row["judge"] == rows[0]["judge"]]
