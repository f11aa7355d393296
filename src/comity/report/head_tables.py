"""Turn what a reward head knows of itself into tables of words."""

from collections.abc import Mapping
from typing import Any

from comity.report.audit_tables import Table
from comity.report.tables import show


def tabulate_head(kind: str, name: str, metadata: Mapping[str, Any]) -> list[Table]:
    """Return how far a head can be believed on held-out rows and when to ask another judge; [] without such rows."""
    if "reliability" not in metadata:
        return []
    share = kind == "agreement"
    bins = Table(
        "reliability", f"{kind} {name}: what it says beside what is true, held-out rows",
        "Within 1 and 1.96 of its standard deviations should lie 68 % and 95 % of the labels"
        + (", here on the scale of the regression." if share else "."),
        1, ("head says", "n", "mean said", "mean true", "within 68 %", "within 95 %"),
        tuple(
            (
                "all" if row["high"] is None else f"{row['low']:g} to {row['high']:g}", str(row["n"]),
                _show(row["predicted"], share), _show(row["true"], share),
                _show(row["within_68"], True), _show(row["within_95"], True),
            )
            for row in metadata["reliability"]
        ),
    )  # fmt: skip
    asking = Table(
        "asking", f"{kind} {name}: passing the doubtful rows on to another judge, held-out rows",
        "Error: " + ("wrong words" if share else "mean distance from the label")
        + ". When: " + ("the probability's distance from the threshold" if share else "the uncertainty")
        + ". The last column counts rows passed on as answered like their labels.",
        1, ("passed on", "when", "kept", "error of the kept", "error of all"),
        tuple(
            (
                _show(row["share"], True), _describe_doubt(row, share), str(row["n_kept"]),
                _show(row["kept_error"], share), _show(row["error"], share),
            )
            for row in metadata["asking"]["table"]
        ),
    )  # fmt: skip
    return [bins, asking]


def _describe_doubt(row: Mapping[str, Any], share: bool) -> str:
    if not row["share"]:
        return "never"
    if share:
        return f"within {1 - row['from_doubt']:.2f}"
    return f"above {row['from_doubt']:.2f}"


def _show(value: float | None, share: bool) -> str:
    return show(value, "share" if share else "number")
