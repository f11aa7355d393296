"""One policy update: all micro-batches of a step, one optimiser step (paper, section 3; GRPO with DAPO's loss)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from comity.engines.llama import open_llama
from comity.training.collate import MicroBatch, make_micro_batches
from comity.training.distributed import ONE_PROCESS, Processes
from comity.training.loss import policy_loss
from comity.training.policy import PolicyOptimizer, token_logprobs
from comity.training.sharding import is_sharded
from comity.types import TurnSample


@dataclass
class _Totals:
    loss: float = 0.0
    tokens: int = 0
    entropy: float = 0.0
    largest_ratio: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


def update_policy(
    model: PreTrainedModel,
    optimizer: PolicyOptimizer,
    samples: Sequence[TurnSample],
    step: int,
    pad_id: int,
    processes: Processes = ONE_PROCESS,
) -> dict[str, float]:
    """Update the adapter on all samples of a step and return metrics.

    Samples without advantage are skipped before the forward pass (unless a KL penalty needs them) but count among the
    step's tokens. Without any advantage the policy stays exactly as it is. `samples` are those of this process; tokens,
    gradients and metrics are summed over all of them, so the update is that of one process with all samples.
    """
    settings = optimizer.settings
    used = [sample for sample in samples if sample.advantage != 0 or settings.kl_coefficient]
    counts = processes.gather((sum(int(sample.loss_mask.sum()) for sample in samples), len(used)))
    step_tokens, used_samples = (sum(column) for column in zip(*counts, strict=True))
    metrics = {"loss/tokens": float(step_tokens), "loss/used_samples": float(used_samples)}
    if not used_samples:
        return metrics
    packs, sharded = open_llama(model) is not None, is_sharded(model)
    budget = settings.micro_batch_tokens
    batches = list(make_micro_batches(used, budget, pad_id, share_prefixes=not sharded, padded=not packs))
    idle = _idle_batches(len(batches), pad_id, processes) if sharded else []
    before: list[Tensor] = []
    references = _reference_logprobs(model, optimizer, [*batches, *idle])
    for epoch in range(settings.epochs_per_step):
        totals = _Totals()
        for place, batch in enumerate(batches):
            old_N = before[place] if epoch else None
            logprobs_N = _accumulate(model, optimizer, batch, (old_N, references[place]), step_tokens, totals)
            optimizer.collect()
            if epoch == 0:
                before.append(logprobs_N)
        for batch in idle:
            _pass_idly(model, optimizer, batch)
        processes.sum_tensors(optimizer.gradients())
        totals = _add_totals(processes.gather(totals))
        norm = optimizer.step(step)
        if epoch == 0:
            # The mismatch is a property of the sampling policy: later epochs compare a policy that has moved.
            metrics |= {
                "mismatch/mean_ratio": totals.sums["mean_ratio"] / totals.tokens,
                "mismatch/max_ratio": totals.largest_ratio,
                "mismatch/kl": totals.sums["kl"] / totals.tokens,
                "policy/entropy": totals.entropy / totals.tokens,
            }
        metrics |= {
            "loss/policy": totals.loss,
            "loss/gradient_norm": norm,
            "loss/clip_share": totals.sums["clip_share"] / totals.tokens,
        }
        if "reference_kl" in totals.sums:
            metrics["loss/reference_kl"] = totals.sums["reference_kl"] / totals.tokens
    return metrics


def _reference_logprobs(
    model: PreTrainedModel, optimizer: PolicyOptimizer, batches: Sequence[MicroBatch]
) -> list[Tensor | None]:
    # All at once: the reference's weights are put in place, and folded, once a step.
    if not optimizer.settings.kl_coefficient:
        return [None] * len(batches)
    with torch.no_grad(), optimizer.reference_policy():
        return [token_logprobs(model, batch)[0] for batch in batches]


def _idle_batches(count: int, pad_id: int, processes: Processes) -> list[MicroBatch]:
    # For a process that is done before others are: they gather the layers of a sharded base from all.
    sample = TurnSample(np.full(2, pad_id, np.int32), np.array([False, True]), np.zeros(2, np.float32), 0.0)
    (batch,) = make_micro_batches([sample], 2, pad_id, share_prefixes=False)
    return [batch] * (max(processes.gather(count)) - count)


def _pass_idly(model: PreTrainedModel, optimizer: PolicyOptimizer, batch: MicroBatch) -> None:
    logprobs_N, _ = token_logprobs(model, batch)
    (logprobs_N.sum() * 0).backward()  # type: ignore[no-untyped-call]
    optimizer.collect()


def _add_totals(parts: Sequence[_Totals]) -> _Totals:
    keys = {key: None for part in parts for key in part.sums}
    return _Totals(
        loss=sum(part.loss for part in parts),
        tokens=sum(part.tokens for part in parts),
        entropy=sum(part.entropy for part in parts),
        largest_ratio=max(part.largest_ratio for part in parts),
        sums={key: sum(part.sums.get(key, 0.0) for part in parts) for key in keys},
    )


def _accumulate(
    model: PreTrainedModel,
    optimizer: PolicyOptimizer,
    batch: MicroBatch,
    others: tuple[Tensor | None, Tensor | None],
    step_tokens: int,
    totals: _Totals,
) -> Tensor:
    # `others`: the policy's log-probabilities before the step, once they are another's; the reference policy's.
    old_logprobs_N, reference_N = others
    logprobs_N, entropies_N = token_logprobs(model, batch)
    device = logprobs_N.device
    output = policy_loss(
        logprobs_N,
        logprobs_N.detach() if old_logprobs_N is None else old_logprobs_N,
        batch.sampled_logprobs_N.to(device),
        batch.advantages_N.to(device),
        optimizer.settings,
        step_tokens,
        reference_N,
    )
    output.loss.backward()  # type: ignore[no-untyped-call]
    totals.loss += float(output.loss.detach())
    totals.tokens += output.n_tokens
    totals.entropy += float(entropies_N.sum())
    totals.largest_ratio = max(totals.largest_ratio, output.largest_ratio)
    for key, value in output.sums.items():
        totals.sums[key] = totals.sums.get(key, 0.0) + value
    return logprobs_N.detach()
