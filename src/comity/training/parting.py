"""Whether the training judge and the held-out judge part: the first sign that a policy pleases its judge alone.

For agreement and for the score of the joint answer, the gap of a step is the training judge's mean less the held-out
judge's, over the same dialogues. The gaps of the first k steps are set against those of the last k. They part when

    growth = mean(last) - mean(first)  >  x * sqrt(var(first) / k + var(last) / k)

with sample variances (Welch's statistic), the growth is at least SMALLEST_GROWTH, and the training judge's own mean did
not fall. The gap is compared, not each judge alone, because what makes a step's dialogues easy or hard moves both.

k is a quarter of the steps so far, between FEWEST_STEPS and `judges.parted_steps`: a short run is watched soon, and a
long one, which is looked at often, with a steadier eye.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from comity.config import JudgeConfig

FEWEST_STEPS = 5
Quantity = Literal["agreement", "score"]
KEYS: Mapping[Quantity, tuple[str, str]] = {
    "agreement": ("agreement/rate", "agreement/heldout_rate"),
    "score": ("score/mean", "score/heldout_mean"),
}
"""The metrics of the training judge and of the held-out judge."""
SMALLEST_GROWTH: Mapping[Quantity, float] = {"agreement": 0.1, "score": 0.25}
"""Growth of the gap below which nobody is warned, however sure it is: a tenth of all dialogues, a quarter point."""


@dataclass(frozen=True, slots=True)
class Parting:
    """How the gap between two judges moved: means of both over the first and over the last `steps` steps."""

    quantity: Quantity
    steps: int
    training: tuple[float, float]
    heldout: tuple[float, float]
    standard_error: float
    parted: bool

    @property
    def growth(self) -> float:
        """Return by how much the gap grew."""
        return (self.training[1] - self.heldout[1]) - (self.training[0] - self.heldout[0])


def find_partings(rows: Sequence[Mapping[str, float]], judges: JudgeConfig) -> list[Parting]:
    """Return how each gap moved over the metrics of a run; [] when that is switched off or there are too few steps."""
    if judges.parted == "off":
        return []
    found = [measure_parting(rows, quantity, judges.parted_steps, judges.parted_errors) for quantity in KEYS]
    return [parting for parting in found if parting is not None]


def choose_steps(known: int, most: int) -> int:
    """Return how many first and last steps of `known` ones are compared."""
    return min(most, max(FEWEST_STEPS, known // 4))


def measure_parting(
    rows: Sequence[Mapping[str, float]], quantity: Quantity, most: int, errors: float
) -> Parting | None:
    """Return how the gap moved over the metrics of a run; None before twice the steps to compare have both judges."""
    training_key, heldout_key = KEYS[quantity]
    known = [(row[training_key], row[heldout_key]) for row in rows if training_key in row and heldout_key in row]
    steps = choose_steps(len(known), most)
    if len(known) < 2 * steps:
        return None
    spans = (known[:steps], known[-steps:])
    training, heldout = (
        (statistics.fmean(pair[place] for pair in spans[0]), statistics.fmean(pair[place] for pair in spans[1]))
        for place in (0, 1)
    )
    variances = [statistics.variance(one - other for one, other in span) for span in spans]
    error = (sum(variances) / steps) ** 0.5
    found = Parting(quantity, steps, training, heldout, error, False)
    is_large = found.growth > errors * error and found.growth >= SMALLEST_GROWTH[quantity]
    return replace(found, parted=is_large and training[1] >= training[0])


def summarize_parting(partings: Sequence[Parting]) -> dict[str, float]:
    """Return `judges/parted` (1 when they part, else 0) and each gap's growth; {} before there are steps enough."""
    if not partings:
        return {}
    growths = {f"judges/{parting.quantity}_gap_growth": parting.growth for parting in partings}
    return {"judges/parted": float(any(parting.parted for parting in partings))} | growths


def describe_parting(partings: Sequence[Parting]) -> str:
    """Return in one line how the judges part, "" when they do not."""
    parts = []
    for parting in partings:
        if parting.parted:
            words = [_show(parting.quantity, value) for value in (*parting.training, *parting.heldout)]
            parts.append(
                f"{parting.quantity} {words[0]} -> {words[1]} by the training judge, {words[2]} -> {words[3]} by the "
                f"held-out judge, first and last {parting.steps} steps"
            )
    return f"the judges part ({'; '.join(parts)})" if parts else ""


def _show(quantity: Quantity, value: float) -> str:
    return f"{100 * value:.0f} %" if quantity == "agreement" else f"{value:.2f}"
