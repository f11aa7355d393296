"""What a head's scores are measured by."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from comity.judges.labels import Kind

Array = NDArray[np.float64]
SCORES = (0, 1, 2, 3, 4, 5)
"""Named to kappa, which would otherwise close the gap that a score nobody has leaves in the scale."""


def measure(kind: Kind, score_N: Array, target_N: Array, threshold: float = 0.5) -> dict[str, float]:
    """Return figures by name: agency Spearman, quadratic kappa, MAE; agreement F1, accuracy, AUC.

    Agency scores and targets are rounded to whole numbers for kappa; agreement scores count as YES from `threshold` on.
    A figure that one class or one value leaves undefined is 0.
    """
    if kind == "agency":
        spread = len(np.unique(score_N)) > 1 and len(np.unique(target_N)) > 1
        levels = [np.clip(np.floor(values + 0.5), 0, 5).astype(int) for values in (target_N, score_N)]
        known = spread and len(np.unique(np.concatenate(levels))) > 1
        kappa = cohen_kappa_score(*levels, labels=SCORES, weights="quadratic") if known else 0.0
        return {
            "spearman": float(spearmanr(score_N, target_N).statistic) if spread else 0.0,
            "kappa": float(kappa),
            "mae": float(np.abs(score_N - target_N).mean()),
        }
    return {
        "f1": f1_at(score_N, target_N, threshold),
        "accuracy": float(((score_N >= threshold) == (target_N > 0.5)).mean()),
        "auc": float(roc_auc_score(target_N, score_N)) if len(np.unique(target_N)) > 1 else 0.0,
    }


def f1_at(score_N: Array, target_N: Array, threshold: float) -> float:
    """Return F1 of "YES from `threshold` on" against targets of 0 and 1; 0 without any YES."""
    said, true = score_N >= threshold, target_N > 0.5
    either = int(said.sum() + true.sum())
    return 2 * int((said & true).sum()) / either if either else 0.0


def best_threshold(score_N: Array, target_N: Array) -> float:
    """Return the threshold with the best F1, taken as the middle of all that come within 0.01 of the best."""
    candidates = np.linspace(0.2, 0.8, 61)
    f1 = np.array([f1_at(score_N, target_N, float(c)) for c in candidates])
    return float(np.median(candidates[f1 >= f1.max() - 0.01]))
