"""Batched sampling: shared beginnings are computed once, finished rows leave the batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache, PreTrainedModel

from comity.engines.cache import allocate_cache, select_rows
from comity.engines.models import decoder_of, output_layer
from comity.engines.prefixes import group_prefixes
from comity.engines.sampling import sample_tokens
from comity.types import Request

SHRINK_AT = 0.75
"""The batch is shrunk when at most this share of its rows is still going."""

Drawn = tuple[list[int], list[float]]
"""Sampled tokens and their log-probabilities."""
OnDraw = Callable[[Sequence[Drawn]], None]


@dataclass
class _Rows:
    """What goes with the rows of a batch: their drawing settings and the mask over cache positions."""

    index_B: Tensor
    temperature_B: Tensor
    top_p_B: Tensor
    uniform_BL: Tensor
    mask_BL: Tensor

    def keep(self, kept: Tensor) -> "_Rows":
        return _Rows(
            self.index_B[kept], self.temperature_B[kept], self.top_p_B[kept], self.uniform_BL[kept], self.mask_BL[kept]
        )


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[NDArray[np.int32]],
    requests: Sequence[Request],
    pad_id: int,
    stop_ids: frozenset[int],
    on_draw: OnDraw | None = None,
) -> list[Drawn]:
    """Return for each prompt the sampled tokens (with the stop token, if one came) and their log-probabilities.

    `on_draw` gets them as they stand after each token of the longest text.
    """
    limits = [request.sampling.max_tokens for request in requests]
    head = output_layer(model)
    cache, states_BD, mask_BL, start = _prefill(model, prompts, pad_id, max(limits))
    logits_BV = head(states_BD)
    rows = _make_rows(requests, mask_BL, max(limits))
    drawn: list[Drawn] = [([], []) for _ in prompts]
    for step in range(max(limits)):
        token_B, logprob_B = sample_tokens(logits_BV, rows.temperature_B, rows.top_p_B, rows.uniform_BL[:, step])
        going = _record(rows.index_B, token_B, logprob_B, drawn, limits, stop_ids)
        if on_draw is not None:
            on_draw(drawn)
        if not any(going):
            break
        rows.mask_BL[:, start + step] = 1
        if sum(going) <= SHRINK_AT * len(going):
            kept = torch.tensor([i for i, flag in enumerate(going) if flag], device=token_B.device)
            rows, token_B = rows.keep(kept), token_B[kept]
            select_rows(cache, kept, start + max(limits))
        seen_BL = rows.mask_BL[:, : start + step + 1]
        states_BD = _last_states(model, token_B[:, None], seen_BL, seen_BL.sum(-1, keepdim=True) - 1, cache)
        logits_BV = head(states_BD)
    return drawn


def _last_states(model: PreTrainedModel, ids_BT: Tensor, mask_BL: Tensor, position_BT: Tensor, cache: Cache) -> Tensor:
    # The output layer is applied by hand to contiguous rows: on a strided slice it would copy its weight once a row.
    states_BTD: Tensor = decoder_of(model)(
        input_ids=ids_BT,
        attention_mask=mask_BL,
        position_ids=position_BT,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return states_BTD[:, -1].contiguous()


def _make_rows(requests: Sequence[Request], mask_BL: Tensor, longest: int) -> _Rows:
    device = mask_BL.device
    return _Rows(
        index_B=torch.arange(len(requests), device=device),
        temperature_B=torch.tensor([r.sampling.temperature for r in requests], device=device),
        top_p_B=torch.tensor([r.sampling.top_p for r in requests], device=device),
        # Every request has its own random stream: what it draws does not depend on its neighbours.
        uniform_BL=torch.stack(
            [torch.rand(longest, generator=torch.Generator().manual_seed(r.seed)) for r in requests]
        ).to(device),
        mask_BL=mask_BL,
    )


def _prefill(
    model: PreTrainedModel, prompts: Sequence[NDArray[np.int32]], pad_id: int, new_tokens: int
) -> tuple[Cache, Tensor, Tensor, int]:
    # Cache positions: shared beginnings (padded left), remainders (padded left), then one for each new token.
    device = model.device
    groups = group_prefixes(prompts, [len(prompt) - 1 for prompt in prompts])
    shared = [group for group in groups if group.length]
    cut = {row: group.length for group in groups for row in group.rows}
    owner = {row: place for place, group in enumerate(shared) for row in group.rows}
    remainders = [prompt[cut[row] :] for row, prompt in enumerate(prompts)]
    suffix_BS, suffix_mask_BS = _pad_left(remainders, pad_id, device)
    prefix_length = max((group.length for group in shared), default=0)
    start = prefix_length + suffix_BS.shape[1]
    mask_BL = torch.zeros(len(prompts), start + new_tokens, dtype=torch.long, device=device)
    mask_BL[:, prefix_length:start] = suffix_mask_BS
    cache = allocate_cache(model.config, prefix_length or start + new_tokens)
    if shared:
        beginnings = [prompts[group.rows[0]][: group.length] for group in shared]
        prefix_CP, prefix_mask_CP = _pad_left(beginnings, pad_id, device)
        _last_states(model, prefix_CP, prefix_mask_CP, (prefix_mask_CP.cumsum(-1) - 1).clamp(min=0), cache)
        owner_B = torch.tensor([owner.get(row, 0) for row in range(len(prompts))], device=device)
        has_owner_B1 = torch.tensor([row in owner for row in range(len(prompts))], device=device)[:, None]
        mask_BL[:, :prefix_length] = prefix_mask_CP[owner_B] * has_owner_B1
        select_rows(cache, owner_B, start + new_tokens)
    seen_BT = mask_BL[:, :start]
    position_BS = (seen_BT.cumsum(-1) - 1).clamp(min=0)[:, prefix_length:]
    states_BD = _last_states(model, suffix_BS, seen_BT, position_BS, cache)
    return cache, states_BD, mask_BL, start


def _pad_left(sequences: Sequence[NDArray[np.int32]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), pad_id, dtype=torch.long)
    mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = torch.from_numpy(sequence.astype(np.int64))
        mask[row, longest - len(sequence) :] = 1
    return ids.to(device), mask.to(device)


def _record(
    index_B: Tensor,
    token_B: Tensor,
    logprob_B: Tensor,
    drawn: Sequence[Drawn],
    limits: Sequence[int],
    stop_ids: frozenset[int],
) -> list[bool]:
    # Finished rows stay in the batch until it is worth shrinking; what they draw after their end is not kept.
    going = []
    for row, token, logprob in zip(index_B.tolist(), token_B.tolist(), logprob_B.tolist(), strict=True):
        tokens, logprobs = drawn[row]
        ended = len(tokens) >= limits[row] or (bool(tokens) and tokens[-1] in stop_ids)
        if not ended:
            tokens.append(token)
            logprobs.append(logprob)
            ended = token in stop_ids or len(tokens) >= limits[row]
        going.append(not ended)
    return going
