"""Decode with a model of transformers: shared beginnings are computed once, keys and values are written in place."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache, PreTrainedModel

from comity.engines.cache import allocate_cache, select_rows
from comity.engines.models import decoder_of, output_layer
from comity.engines.prefixes import group_prefixes


class Decoder(Protocol):
    """Rows of a batch after their prompts."""

    logits_BV: Tensor
    """Logits of the first new token."""

    def step(self, token_B: Tensor) -> Tensor:
        """Take one token of each row in and return the logits (B, V) of the next."""

    def keep_rows(self, kept: Tensor) -> None:
        """Let the other rows go."""


class TransformersDecoder:
    """A `Decoder` for any causal language model of transformers."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[NDArray[np.int32]], new_tokens: int, pad_id: int
    ) -> None:
        self.model, self.head = model, output_layer(model)
        self.cache, states_BD, self.mask_BL, self.end = _prefill(model, prompts, pad_id, new_tokens)
        self.logits_BV = self.head(states_BD)

    def step(self, token_B: Tensor) -> Tensor:
        """Take one token of each row in and return the logits (B, V) of the next."""
        self.mask_BL[:, self.end] = 1
        self.end += 1
        seen_BL = self.mask_BL[:, : self.end]
        states_BD = _last_states(self.model, token_B[:, None], seen_BL, seen_BL.sum(-1, keepdim=True) - 1, self.cache)
        logits_BV: Tensor = self.head(states_BD)
        return logits_BV

    def keep_rows(self, kept: Tensor) -> None:
        """Let the other rows go."""
        self.mask_BL = self.mask_BL[kept]
        select_rows(self.cache, kept, self.mask_BL.shape[1])


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
