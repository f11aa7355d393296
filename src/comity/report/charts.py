"""What each figure over training steps shows: its lines, words and colours, as data, and how it is averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

INK, MUTED, LINE, SURFACE = "#1d2430", "#68707d", "#e2e5ea", "#ffffff"
TRAINING, HELDOUT = "#4b4fb0", "#b8326e"
BEFORE, AFTER = "#7c8592", "#0f7f74"
QUIET, WARNING = "#b9c0ca", "#c96a2b"
COLOUR_NAMES = {
    INK: "ink", MUTED: "muted", LINE: "line", SURFACE: "surface", TRAINING: "training", HELDOUT: "heldout",
    BEFORE: "before", AFTER: "after", QUIET: "quiet", WARNING: "warning",
}  # fmt: skip
"""Each figure colour and the style sheet's variable that replaces it in the page, which knows light and dark."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: the metric it reads, its direct label and its colour."""

    key: str
    label: str
    colour: str = TRAINING
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure over steps; `limits` fixes the y axis, `percent` shows shares as percentages.

    `fill` paints the area between the first and the last series; a `stack` adds its series up.
    """

    name: str
    section: Literal["outcome", "gaming", "optimization"]
    title: str
    caption: str
    series: tuple[Series, ...]
    limits: tuple[float | None, float | None] = (None, None)
    percent: bool = False
    fill: bool = False
    kind: Literal["lines", "stack"] = "lines"


SHARE = (0.0, 1.0)
FROM_ZERO = (0.0, None)

CHARTS = (
    Chart(
        "reward", "outcome", "Reward within a group",
        "Lowest, mean and highest reward (0 to 5) of the rollouts of one scenario, averaged over the step's groups. "
        "A dialogue without agreement counts 0.",
        (
            Series("reward/group_max", "highest"),
            Series("reward/group_mean", "mean"),
            Series("reward/group_min", "lowest"),
        ),
        (0.0, 5.0), fill=True,
    ),
    Chart(
        "agreement", "outcome", "Dialogues that end in agreement",
        "By the judge that trains, and by a second judge that never trains anything.",
        (
            Series("agreement/rate", "training judge"),
            Series("agreement/heldout_rate", "held-out judge", HELDOUT, dashed=True),
        ),
        SHARE, percent=True,
    ),
    Chart(
        "rounds", "outcome", "Rounds to agreement",
        "Agreed dialogues only. A round is one message of each side.",
        (Series("agreement/rounds", "rounds", INK),), FROM_ZERO,
    ),
    Chart(
        "zero-reward", "outcome", "Which rollouts teach",
        "Share of rollouts that agreed and have an advantage; that failed inside a mixed group; and that lie in groups "
        "without spread, which teach nothing. What is missing to 100 % is unscored or exactly average.",
        (
            Series("zero/used", "agreed, used", TRAINING),
            Series("zero/failed_in_mixed", "failed, mixed", WARNING),
            Series("zero/flat_groups", "no spread", QUIET),
        ),
        SHARE, percent=True, kind="stack",
    ),
    Chart(
        "judges", "gaming", "Score of the joint answer by two judges",
        "A gap that widens means that the policy pleases the training judge more than it improves.",
        (
            Series("score/mean", "training judge"),
            Series("score/heldout_mean", "held-out judge", HELDOUT, dashed=True),
        ),
        (0.0, 5.0), fill=True,
    ),
    Chart(
        "copying", "gaming", "Repeated and copied words",
        "Share of 4-word sequences that occurred before in the dialogue; that stood in the other side's last message.",
        (Series("signs/repetition", "repeated", INK), Series("signs/parroting", "parroted", WARNING, dashed=True)),
        FROM_ZERO, percent=True,
    ),
    Chart(
        "length", "gaming", "Words a message", "Mean length of a message.",
        (Series("signs/words", "words", INK),), FROM_ZERO,
    ),
    Chart(
        "empty", "gaming", "Empty agreement and cut-off messages",
        "Agreed dialogues whose last two messages hold nothing concrete; messages that ran into the token limit.",
        (Series("signs/without_plan", "no plan", WARNING), Series("signs/cut_off", "cut off", INK, dashed=True)),
        FROM_ZERO, percent=True,
    ),
    Chart(
        "mismatch", "optimization", "Policy / engine probability ratio",
        "Probability of a sampled token by the trainer over that by the engine that sampled it: 1 means no mismatch.",
        (Series("mismatch/max_ratio", "largest", WARNING, dashed=True), Series("mismatch/mean_ratio", "mean", INK)),
    ),
    Chart(
        "mismatch-kl", "optimization", "Policy / engine divergence", "Estimated KL divergence a token, in nats.",
        (Series("mismatch/kl", "KL", INK),),
    ),
    Chart(
        "gradient", "optimization", "Gradient norm", "Before clipping.",
        (Series("loss/gradient_norm", "norm", INK),), FROM_ZERO,
    ),
    Chart(
        "entropy", "optimization", "Entropy", "Mean entropy of the policy a token, in nats; a fall to 0 is a collapse.",
        (Series("policy/entropy", "nats", INK),), FROM_ZERO,
    ),
    Chart(
        "spend", "optimization", "Dollars spent so far",
        "What the judges behind addresses have cost this run, over all its resumes; kept verdicts cost nothing.",
        (Series("spend/total_dollars", "dollars", INK),), FROM_ZERO,
    ),
)  # fmt: skip
"""Every figure over steps, in the order of the page."""


def running_average(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the latest `window` values at each place; the first places average what there is."""
    sums = np.cumsum(np.concatenate(([0.0], np.asarray(values, dtype=float))))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means


def averaging_window(steps: int) -> int:
    """Return over how many steps a curve is averaged: a fifth of the run, at least 3 and at most 50."""
    return min(50, max(3, steps // 5))
