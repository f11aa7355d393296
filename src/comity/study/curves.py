"""Figures of checkpoints on held-out tasks, named as training metrics are, so that one chart shows both."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from comity.evaluation.statistics import agreement
from comity.scenarios.rows import Row


def summarize_curves(rows: Sequence[Row], base: str) -> dict[str, list[dict[str, float]]]:
    """Return for each arm one row a checkpoint, by step: agreement, rounds to it, rewards within a scenario's runs.

    Dialogues are those of models named ARM-step-N; the `base` is step 0 of every arm. Unscored ones are left out.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["model"], []).append(row)
    curves: dict[str, list[dict[str, float]]] = {}
    for name, group in groups.items():
        arm, _, step = name.rpartition("-step-")
        if arm:
            curves.setdefault(arm, []).append({"step": float(step), **_measure(group)})
    begin = {"step": 0.0, **_measure(groups.get(base, []))}
    return {arm: sorted([begin, *points], key=lambda point: point["step"]) for arm, points in curves.items()}


def _measure(rows: Sequence[Row]) -> dict[str, float]:
    words = [word for word in map(agreement, rows) if word is not None]
    rounds = [row["rounds"] for row in rows if row["ending"] == "agreed"]
    rewards: dict[str, list[float]] = {}
    for row in rows:
        if row["reward"] is not None:
            rewards.setdefault(row["scenario"], []).append(row["reward"])
    measured: dict[str, Sequence[Any]] = {
        "agreement/rate": words,
        "agreement/rounds": rounds,
        "agreement/heldout_rate": [row["heldout_agreed"] for row in rows if row["heldout_agreed"] is not None],
        "score/heldout_mean": [row["heldout_score"] for row in rows if row["heldout_score"] is not None],
        "reward/group_min": [min(group) for group in rewards.values()],
        "reward/group_mean": [float(np.mean(group)) for group in rewards.values()],
        "reward/group_max": [max(group) for group in rewards.values()],
    }
    return {key: float(np.mean(values)) for key, values in measured.items() if values}
