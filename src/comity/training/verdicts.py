"""Whether a step has verdicts enough to learn from, what they cost, and which judge gave them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from comity.access import Spend
from comity.errors import JudgeError
from comity.types import Judged


def require_verdicts(judged: Sequence[Judged], step: int, limit: float) -> None:
    """Raise JudgeError when more rollouts lack a verdict than `limit`, a share."""
    unscored = [item for item in judged if item.reward is None]
    if len(unscored) <= limit * len(judged):
        return
    ((reason, _),) = Counter(_find_reason(item) for item in unscored).most_common(1)
    kept = f" and checkpoint-{step - 1} is kept" if step > 1 else ""
    raise JudgeError(
        f"judges.max_unscored_share is {limit}, but {len(unscored)} of {len(judged)} rollouts of step {step} have no "
        f"verdict (mostly: {reason}); the step was not taken{kept}: mend the judge and run the same command again with "
        "--resume"
    )


def _find_reason(judged: Judged) -> str:
    if judged.negotiation.ending == "failed":
        return "a reply of the dialogue failed"
    missing = [verdict.text for verdict in judged.verdicts if verdict.score is None]
    missing += [check.reason for check in judged.negotiation.checks if check.agreed is None]
    return missing[0][:200] if missing and missing[0] else "no verdict in the reply"


def summarize_spend(before: Sequence[Spend], after: Sequence[Spend]) -> dict[str, float]:
    """Return what one step paid for, and the dollars of the run so far.

    Calls without a price and calls without a reply are told where there are any.
    """
    metrics = {
        "spend/calls": float(sum(s.calls for s in after) - sum(s.calls for s in before)),
        "spend/dollars": sum(s.dollars for s in after) - sum(s.dollars for s in before),
        "spend/total_dollars": float(sum(s.dollars for s in after)),
    }
    for name in ("unpriced", "failed"):
        added = sum(getattr(s, name) for s in after) - sum(getattr(s, name) for s in before)
        metrics |= {f"spend/{name}": float(added)} if added else {}
    return metrics


Counts = Mapping[str, tuple[int, int]]
"""Rows read and rows passed on by a judge that asks a head first, by what it judges."""


def count_since(before: Counts, after: Counts) -> Counts:
    """Return what was counted between two moments."""
    return {
        name: (rows - before.get(name, (0, 0))[0], passed - before.get(name, (0, 0))[1])
        for name, (rows, passed) in after.items()
    }


def summarize_passed_on(parts: Sequence[Counts]) -> dict[str, float]:
    """Return for each judge that asks a head first how many rows all processes passed on, and their share."""
    metrics = {}
    for name in parts[0]:
        rows, passed = (sum(part[name][place] for part in parts) for place in (0, 1))
        metrics[f"passed_on/{name}"] = float(passed)
        if rows:
            metrics[f"passed_on/{name}_share"] = passed / rows
    return metrics
