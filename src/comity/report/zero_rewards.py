"""Where rewards of 0 come from: groups without any spread, failures inside mixed groups, and what is learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comity.report.tables import show
from comity.runs import read_negotiations

PAPER = ("the paper", "30400", "25.0 %", "3.0 %", "72.0 %", "–", "−1.69 ± 0.65")
HEADINGS = (
    "", "rollouts", "in groups without spread", "failed in mixed groups", "agreed and used", "agreed at the mean",
    "advantage of the failed",
)  # fmt: skip
TITLE = "Rollouts that teach nothing, and those that do"
NOTE = "Shares of scored training rollouts; the advantage of those that failed in mixed groups ± its deviation."


@dataclass(frozen=True, slots=True)
class ZeroRewards:
    """Shares of scored rollouts; the advantage of those that failed in mixed groups with its standard deviation.

    `at_mean` agreed in a mixed group with a reward that is exactly the group's mean, so its advantage is 0.
    """

    rollouts: int
    flat: float
    failed: float
    used: float
    at_mean: float
    failed_advantage: float | None
    failed_deviation: float | None


def summarize_zero_rewards(steps: Sequence[Sequence[Mapping[str, Any]]]) -> ZeroRewards | None:
    """Return the analysis of the dialogues of each training step; None without a scored rollout (paper, section 5)."""
    counts = {"flat": 0, "failed": 0, "used": 0, "at_mean": 0}
    advantages: list[float] = []
    for rows in steps:
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["reward"] is not None and row["advantage"] is not None:
                groups.setdefault(row["scenario"], []).append(row)
        for group in groups.values():
            is_flat = all(row["advantage"] == 0 for row in group)
            for row in group:
                kind = "flat" if is_flat else _kind_of(row)
                counts[kind] += 1
                if kind == "failed":
                    advantages.append(row["advantage"])
    total = sum(counts.values())
    if total == 0:
        return None
    return ZeroRewards(
        rollouts=total,
        flat=counts["flat"] / total,
        failed=counts["failed"] / total,
        used=counts["used"] / total,
        at_mean=counts["at_mean"] / total,
        failed_advantage=float(np.mean(advantages)) if advantages else None,
        failed_deviation=float(np.std(advantages, ddof=1)) if len(advantages) > 1 else None,
    )


def read_steps(run: Path) -> list[list[dict[str, Any]]]:
    """Return the dialogues of each training step of a run."""
    return [read_negotiations(path) for path in sorted((run / "negotiations").glob("step-*.jsonl"))]


def tell_zero_rewards(name: str, found: ZeroRewards) -> tuple[str, ...]:
    """Return the row of a run or arm under `HEADINGS`."""
    shares = (show(share, "share") for share in (found.flat, found.failed, found.used, found.at_mean))
    advantage = show(found.failed_advantage)
    if found.failed_deviation is not None:
        advantage += f" ± {show(found.failed_deviation)}"
    return (name, str(found.rollouts), *shares, advantage)


def _kind_of(row: Mapping[str, Any]) -> str:
    if row["ending"] not in ("agreed", "answered"):
        return "failed"
    return "used" if row["advantage"] != 0 else "at_mean"
