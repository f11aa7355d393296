"""Decode with Llama's plain weights: the prompts packed in one pass, then one token a row and step."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from comity.engines.llama import Llama
from comity.engines.llama_pass import pass_packed, pass_tokens
from comity.engines.packing import pack_shared
from comity.engines.row_attention import open_rows


class LlamaDecoder:
    """The rows of a batch: how long each is, and what its next token attends to."""

    def __init__(self, llama: Llama, prompts: Sequence[NDArray[np.int32]], new_tokens: int) -> None:
        self.llama = llama
        packed = pack_shared(prompts)
        self.length_B = torch.tensor([len(prompt) for prompt in prompts])
        self.rows = open_rows(llama, packed, new_tokens)
        states_TD = pass_packed(llama, packed, self.rows.keep_layer)
        last_B = torch.stack([places[-1] for places in packed.places])
        self.logits_BV = self._logits(states_TD[last_B])

    def step(self, token_B: Tensor) -> Tensor:
        """Take one token of each row in and return the logits (B, V) of the next."""
        self.rows.advance()
        states_BD = pass_tokens(self.llama, token_B, self.length_B, self.rows.attend)
        self.length_B = self.length_B + 1
        return self._logits(states_BD)

    def keep_rows(self, kept: Tensor) -> None:
        """Let the other rows go."""
        self.length_B = self.length_B[kept]
        self.rows.keep_rows(kept)

    def _logits(self, states_BD: Tensor) -> Tensor:
        return self.llama.head(self.llama.norm_states(states_BD, self.llama.norm))
