"""Texts as vectors: mean-pooled hidden states of the frozen base model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from comity.engines.local import LocalEngine
from comity.engines.models import decoder_of


def embed_texts(engine: LocalEngine, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return one vector (N, D) a text: the mean over its tokens at the middle layer.

    Middle layers hold more of a text's meaning than the last, which turns towards the next token.
    """
    layers = decoder_of(engine.model).get_submodule("layers")
    middle = (len(list(layers.children())) + 1) // 2
    return engine.hidden_states(texts, [middle], _mean_over_tokens)[:, 0]


def _mean_over_tokens(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    weights_BT1 = mask_BT.unsqueeze(-1).float()
    return (states_BTD.float() * weights_BT1).sum(1) / weights_BT1.sum(1)
