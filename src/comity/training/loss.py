"""The policy-gradient loss on sampled tokens, flat over a micro-batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from comity.config import OptimizationConfig


@dataclass(frozen=True)
class LossOutput:
    """A summed loss, already divided by the step's tokens, and sums (not means) of what is reported."""

    loss: Tensor
    n_tokens: int
    sums: dict[str, float]
    largest_ratio: float


def policy_loss(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    sampled_logprobs_N: Tensor,
    advantages_N: Tensor,
    settings: OptimizationConfig,
    step_tokens: int,
    reference_logprobs_N: Tensor | None = None,
) -> LossOutput:
    """Return the clipped surrogate summed over tokens and divided by all tokens of the step.

    Clipping: PPO (Schulman et al. 2017) with DAPO's two bounds and token normalisation (Yu et al. 2025).
    `old_logprobs_N` are the trainer's before the step, `sampled_logprobs_N` the engine's; their truncated ratio
    corrects the mismatch between the two (Yao et al. 2025). The KL penalty is the k3 estimator (Schulman 2020).
    """
    ratio_N = (logprobs_N - old_logprobs_N).exp()
    clipped_N = ratio_N.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    surrogate_N = torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    with torch.no_grad():
        mismatch_N = (old_logprobs_N - sampled_logprobs_N).exp()
        weight_N = mismatch_N.clamp(max=settings.importance_cap) if settings.importance_cap else 1.0
        is_clipped_N = ((ratio_N < 1 - settings.clip_low) & (advantages_N < 0)) | (
            (ratio_N > 1 + settings.clip_high) & (advantages_N > 0)
        )
    token_loss_N = -surrogate_N * weight_N
    sums = {
        "clip_share": float(is_clipped_N.sum()),
        "mean_ratio": float(mismatch_N.sum()),
        # k3 again: an unbiased, non-negative estimate of KL(engine || trainer)
        "kl": float((mismatch_N - 1 - mismatch_N.log()).sum()),
    }
    if reference_logprobs_N is not None:
        difference_N = reference_logprobs_N - logprobs_N
        penalty_N = difference_N.exp() - difference_N - 1
        token_loss_N = token_loss_N + settings.kl_coefficient * penalty_N
        sums["reference_kl"] = float(penalty_N.detach().sum())
    loss = token_loss_N.sum() / step_tokens
    return LossOutput(loss, len(logprobs_N), sums, float(mismatch_N.max()) if len(mismatch_N) else 1.0)
