"""Group-relative advantages (GRPO, Shao et al. 2024, equation for outcome supervision)."""

import numpy as np
from numpy.typing import NDArray


def group_advantages(rewards_SG: NDArray[np.float64], scale: str = "group") -> NDArray[np.float64]:
    """Return (reward - mean) / standard deviation inside each group, shape (S, G).

    NaN marks an unscored rollout: it is out of its group's baseline and gets advantage 0. A group without spread, or
    with fewer than two scored rollouts, gets exactly 0. The deviation is the sample one with 1e-4 added, as in TRL;
    `scale="none"` leaves the difference as it is (Dr. GRPO, Liu et al. 2025).
    """
    advantages_SG = np.zeros_like(rewards_SG, dtype=np.float64)
    for group, rewards_G in enumerate(rewards_SG):
        scored_G = ~np.isnan(rewards_G)
        values = rewards_G[scored_G]
        if len(values) < 2 or values.min() == values.max():
            continue
        centred = values - values.mean()
        if scale == "group":
            centred = centred / (values.std(ddof=1) + 1e-4)
        advantages_SG[group, scored_G] = centred
    return advantages_SG
