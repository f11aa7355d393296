"""Lay training samples out as micro-batches whose shared beginnings are computed once.

Samples of one scenario and seat begin with the same system prompt and dilemma. A micro-batch holds each such
beginning once (rows C) and the remainders (rows B); attention from a remainder reaches its beginning through the
key-value cache, and gradients flow back through it, so the result equals the plain pass exactly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from comity.engines.prefixes import PrefixGroup, group_prefixes
from comity.types import TurnSample


@dataclass(frozen=True)
class MicroBatch:
    """Tensors of one forward and backward pass.

    Prefixes are padded on the left, suffixes on the right. `loss_row_N`, `loss_place_N` locate the trained tokens in
    `suffix_ids_BS`; the vectors of length N go with them.
    """

    prefix_ids_CP: Tensor
    prefix_mask_CP: Tensor
    prefix_of_B: Tensor
    suffix_ids_BS: Tensor
    suffix_mask_BS: Tensor
    loss_row_N: Tensor
    loss_place_N: Tensor
    sampled_logprobs_N: Tensor
    advantages_N: Tensor
    temperatures_N: Tensor
    samples_B: tuple[int, ...]
    """Which sample each row is."""


def make_micro_batches(
    samples: Sequence[TurnSample], budget_tokens: int, pad_id: int, share_prefixes: bool = True, padded: bool = True
) -> Iterator[MicroBatch]:
    """Yield micro-batches of at most `budget_tokens` tokens (one sample at least), padding among them if `padded`."""
    sequences = [sample.token_ids for sample in samples]
    # The token before the first trained one stays in the suffix: its hidden state predicts that token.
    limits = [int(sample.loss_mask.argmax()) - 1 for sample in samples]
    groups = (
        group_prefixes(sequences, limits) if share_prefixes else [PrefixGroup(0, (i,)) for i in range(len(samples))]
    )
    rows: list[tuple[int, int, int]] = []  # (group, prefix length, sample)
    for number, group in enumerate(groups):
        rows.extend((number, group.length, row) for row in group.rows)
    batch: list[tuple[int, int, int]] = []
    for row in rows:
        if batch and _count_tokens([*batch, row], samples, padded) > budget_tokens:
            yield _build(batch, samples, pad_id)
            batch = []
        batch.append(row)
    if batch:
        yield _build(batch, samples, pad_id)


def _count_tokens(batch: Sequence[tuple[int, int, int]], samples: Sequence[TurnSample], padded: bool) -> int:
    prefixes = {group: length for group, length, _ in batch}
    sizes = [len(samples[row].token_ids) - length for _, length, row in batch]
    if not padded:
        return sum(prefixes.values()) + sum(sizes)
    return len(prefixes) * max(prefixes.values()) + len(batch) * max(sizes)


def _build(batch: Sequence[tuple[int, int, int]], samples: Sequence[TurnSample], pad_id: int) -> MicroBatch:
    first_row: dict[int, tuple[int, int]] = {}
    for group, length, row in batch:
        first_row.setdefault(group, (length, row))
    order = {group: place for place, group in enumerate(first_row)}
    width = max(length for length, _ in first_row.values())
    prefix_ids = torch.full((len(first_row), width), pad_id, dtype=torch.long)
    prefix_mask = torch.zeros(len(first_row), width, dtype=torch.long)
    for group, (length, row) in first_row.items():
        if length:
            shared = samples[row].token_ids[:length].astype("int64")
            prefix_ids[order[group], width - length :] = torch.from_numpy(shared)
            prefix_mask[order[group], width - length :] = 1
    longest = max(len(samples[row].token_ids) - length for _, length, row in batch)
    suffix_ids = torch.full((len(batch), longest), pad_id, dtype=torch.long)
    suffix_mask = torch.zeros(len(batch), longest, dtype=torch.long)
    places, logprobs, advantages, temperatures = [], [], [], []
    for line, (_, length, row) in enumerate(batch):
        sample = samples[row]
        size = len(sample.token_ids) - length
        suffix_ids[line, :size] = torch.from_numpy(sample.token_ids[length:].astype("int64"))
        suffix_mask[line, :size] = 1
        trained = torch.from_numpy(sample.loss_mask[length:].nonzero()[0])
        places.append(torch.stack([torch.full_like(trained, line), trained]))
        logprobs.append(torch.from_numpy(sample.logprobs[sample.loss_mask]))
        advantages.append(torch.full((len(trained),), sample.advantage))
        temperatures.append(torch.full((len(trained),), sample.temperature))
    row_N, place_N = torch.cat(places, dim=1)
    return MicroBatch(
        prefix_ids_CP=prefix_ids,
        prefix_mask_CP=prefix_mask,
        prefix_of_B=torch.tensor([order[group] for group, _, _ in batch]),
        suffix_ids_BS=suffix_ids,
        suffix_mask_BS=suffix_mask,
        loss_row_N=row_N,
        loss_place_N=place_N,
        sampled_logprobs_N=torch.cat(logprobs),
        advantages_N=torch.cat(advantages),
        temperatures_N=torch.cat(temperatures),
        samples_B=tuple(row for _, _, row in batch),
    )
