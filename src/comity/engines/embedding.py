"""Texts as vectors: mean-pooled hidden states of the frozen base model."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from comity.engines.local import LocalEngine
from comity.engines.models import decoder_of

BATCH_TOKENS = 4096
"""Texts of about equal length in small batches waste little padding and stay in the CPU's cache."""


def embed_texts(engine: LocalEngine, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return one vector (N, D) a text: the mean over its tokens but the first, at the middle layer.

    Middle layers hold more of a text's meaning than the last, which turns towards the next token.
    """
    small = dataclasses.replace(engine, batch_tokens=BATCH_TOKENS)
    layers = decoder_of(engine.model).get_submodule("layers")
    middle = (len(list(layers.children())) + 1) // 2
    return small.hidden_states(texts, [middle], _mean_after_first_token)[:, 0]


def _mean_after_first_token(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    weights_BT = mask_BT.float()
    # The first token takes up attention that no other wants; its state is huge, the same for all texts, and would make
    # the mean a measure of length (Xiao et al. 2024, "attention sinks").
    weights_BT[weights_BT.sum(1) > 1, 0] = 0
    return (states_BTD.float() * weights_BT.unsqueeze(-1)).sum(1) / weights_BT.sum(1, keepdim=True)
