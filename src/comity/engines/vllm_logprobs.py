"""Let vLLM report log-probabilities as the trainer defines them: temperature-scaled, whole vocabulary, before top-p.

None of vLLM's four modes is that. `raw_logprobs` ignores the temperature, `processed_logprobs` is renormalised over the
nucleus, and both kinds of logits are not normalised. But `processed_logits` is read after whatever logits processors
did, and adding a number to all logits of a row changes neither the nucleus nor the draw. So these two processors make
the logits of each row log-probabilities before vLLM cuts the nucleus, and the mode hands them out:

    vllm serve MODEL --logprobs-mode processed_logits --logits-processors \
        comity.engines.vllm_logprobs:NormaliseGreedy comity.engines.vllm_logprobs:NormaliseSampled

They run inside vLLM, with its first model runner (VLLM_USE_V2_MODEL_RUNNER=0); the second has another interface.
"""

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor


class NormaliseGreedy(LogitsProcessor):  # type: ignore[misc]
    """Runs before the temperature: all that a batch of greedy requests passes through."""

    def __init__(self, _config: object, _device: torch.device, _is_pin_memory: bool) -> None:
        """Take what vLLM gives every processor."""

    def apply(self, logits: Tensor) -> Tensor:
        """Return log-probabilities (B, V) at temperature 1."""
        return logits.log_softmax(-1, dtype=torch.float32)

    def is_argmax_invariant(self) -> bool:
        """Return False, although the largest stays the largest: vLLM then also calls it for greedy requests."""
        return False

    def update_state(self, _batch_update: object) -> None:
        """Keep no state of single requests."""


class NormaliseSampled(LogitsProcessor):  # type: ignore[misc]
    """Runs between the temperature and top-p."""

    def __init__(self, _config: object, _device: torch.device, _is_pin_memory: bool) -> None:
        """Take what vLLM gives every processor."""

    def apply(self, logits: Tensor) -> Tensor:
        """Return log-probabilities (B, V) at the temperature of each row."""
        return logits.log_softmax(-1, dtype=torch.float32)

    def is_argmax_invariant(self) -> bool:
        """Return True: vLLM then calls it after the temperature."""
        return True

    def update_state(self, _batch_update: object) -> None:
        """Keep no state of single requests."""
