"""How far a head can be believed, measured on rows it was not fitted on, and when to ask another judge instead.

Reliability: rows by what the head says of them, beside what their labels say. Coverage: the share of rows whose label
lies within 1 and within 1.96 of the head's standard deviations, which should be 68 % and 95 %. For agreement that is
counted on the scale of the regression, before the sigmoid: a probability has no interval that could hold a yes or a no.

Doubt orders rows by how much the head needs a second opinion: for Collective Agency it is the standard deviation, for
agreement the nearness of the probability to the threshold, 1 - |probability - threshold|. The head's file keeps the
percentiles of the doubt on its held-out rows, so that a share of rows to be passed on gives the doubt to begin at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comity.errors import ModelError
from comity.judges.head import HIGHEST_SCORE, RewardHead
from comity.judges.metrics import Array
from comity.types import Verdict

BINS = 5
INTERVALS = {"within_68": 1.0, "within_95": 1.96}
"""Coverage by name, and the standard deviations that a normal error stays within."""
SHOWN_SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Shares of rows passed on for which a head's figures say what would be left."""
PERCENTILES = 101

Figures = Mapping[str, Any]


def measure_reliability(head: RewardHead, features_NF: NDArray[np.float32], target_N: Array) -> list[Figures]:
    """Return one row a bin of the head's scale that holds any, and one of all rows, whose `high` is None.

    Keys: low, high, n, predicted and true (means), within_68, within_95 (shares).
    """
    score_N, std_N = head.predict(features_NF)
    expected_N = score_N
    if head.kind == "agreement":
        expected_N, std_N = head.predict_raw(features_NF)
    error_N = np.abs(target_N - expected_N) / std_N
    top = HIGHEST_SCORE if head.kind == "agency" else 1.0
    bin_N = np.minimum((score_N / top * BINS).astype(int), BINS - 1)
    rows = []
    for place in range(BINS):
        inside = bin_N == place
        if inside.any():
            bounds = {"low": top * place / BINS, "high": top * (place + 1) / BINS}
            rows.append(bounds | _summarize(score_N[inside], target_N[inside], error_N[inside]))
    return [*rows, {"low": 0.0, "high": None} | _summarize(score_N, target_N, error_N)]


def measure_asking(head: RewardHead, features_NF: NDArray[np.float32], target_N: Array) -> dict[str, Any]:
    """Return the percentiles of the doubt, and what passing on a share of the rows leaves.

    `table` has a row for each of SHOWN_SHARES: share, from_doubt, n_kept, kept_error and error. An error is the mean
    distance from the label for Collective Agency, and the share of wrong words for agreement; `error` counts the rows
    passed on as answered as their labels say.
    """
    score_N, std_N = head.predict(features_NF)
    doubt_N = std_N if head.kind == "agency" else 1 - np.abs(score_N - head.threshold)
    error_N = np.abs(score_N - target_N)
    if head.kind == "agreement":
        error_N = ((score_N >= head.threshold) != (target_N > 0.5)).astype(np.float64)
    doubts = np.quantile(doubt_N, np.linspace(0, 1, PERCENTILES))
    table = []
    for share in SHOWN_SHARES:
        begin = find_doubt(doubts.tolist(), share)
        kept = doubt_N <= begin
        table.append(
            {
                "share": share,
                "from_doubt": begin,
                "n_kept": int(kept.sum()),
                "kept_error": float(error_N[kept].mean()) if kept.any() else None,
                "error": float(error_N[kept].sum() / len(error_N)),
            }
        )
    return {"doubts": doubts.tolist(), "table": table}


def find_doubt(doubts: Sequence[float], share: float) -> float:
    """Return the doubt above which a share of the held-out rows lies."""
    return float(np.interp(1 - share, np.linspace(0, 1, len(doubts)), doubts))


def is_doubtful(head: RewardHead, verdict: Verdict, share: float) -> bool:
    """Tell whether a head's verdict is among the share that is passed on; what a rule decided never is.

    Raise ModelError for a head that was fitted without held-out rows, or before doubt was measured.
    """
    asking = head.metadata.get("asking")
    if not asking:
        raise ModelError(
            f"head {head.name!r} does not know when to ask another judge: fit it with held-out rows by `comity judge "
            "calibrate`, or name it without `+`"
        )
    if verdict.text or verdict.score is None or verdict.uncertainty is None:
        return False
    doubt = verdict.uncertainty if head.kind == "agency" else 1 - abs(verdict.score - head.threshold)
    return doubt > find_doubt(asking["doubts"], share)


def _summarize(score_N: Array, target_N: Array, error_N: Array) -> dict[str, Any]:
    coverage = {name: float((error_N <= width).mean()) for name, width in INTERVALS.items()}
    return {"n": len(score_N), "predicted": float(score_N.mean()), "true": float(target_N.mean())} | coverage
