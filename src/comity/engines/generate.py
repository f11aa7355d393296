"""Batched sampling: shared beginnings are computed once, finished rows leave the batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from comity.engines.decoder import Decoder, TransformersDecoder
from comity.engines.llama import open_llama
from comity.engines.llama_decoder import LlamaDecoder
from comity.engines.merging import merged_adapter
from comity.engines.sampling import sample_tokens
from comity.types import Request

SHRINK_AT = 0.75
"""The batch is shrunk when at most this share of its rows is still going."""

Drawn = tuple[list[int], list[float]]
"""Sampled tokens and their log-probabilities."""
OnDraw = Callable[[Sequence[Drawn]], None]


@dataclass
class _Rows:
    """What goes with the rows of a batch: their drawing settings."""

    index_B: Tensor
    temperature_B: Tensor
    top_p_B: Tensor
    uniform_BL: Tensor

    def keep(self, kept: Tensor) -> "_Rows":
        return _Rows(self.index_B[kept], self.temperature_B[kept], self.top_p_B[kept], self.uniform_BL[kept])


def generate(
    model: PreTrainedModel,
    prompts: Sequence[NDArray[np.int32]],
    requests: Sequence[Request],
    pad_id: int,
    stop_ids: frozenset[int],
    on_draw: OnDraw | None = None,
) -> list[Drawn]:
    """Return for each prompt the sampled tokens (with the stop token, if one came) and their log-probabilities.

    An adapter is folded into the weights meanwhile. `on_draw` gets what is drawn as it stands after each token of the
    longest text.
    """
    new_tokens = max(request.sampling.max_tokens for request in requests)
    with _open_decoder(model, prompts, new_tokens, pad_id) as decoder:
        return _draw(decoder, requests, stop_ids, on_draw)


def weigh_next(
    model: PreTrainedModel, prompts: Sequence[NDArray[np.int32]], pad_id: int, option_ids: Sequence[int]
) -> NDArray[np.float64]:
    """Return the log-probabilities (N, K), at temperature 1, of K tokens as the next of each prompt."""
    with _open_decoder(model, prompts, 1, pad_id) as decoder:
        logprob_NK = decoder.logits_BV.float().log_softmax(-1)[:, list(option_ids)]
    found: NDArray[np.float64] = logprob_NK.double().cpu().numpy()
    return found


@contextmanager
def _open_decoder(
    model: PreTrainedModel, prompts: Sequence[NDArray[np.int32]], new_tokens: int, pad_id: int
) -> Iterator[Decoder]:
    llama = open_llama(model)
    with torch.inference_mode():
        if llama is not None:
            yield LlamaDecoder(llama, prompts, new_tokens)
            return
        with merged_adapter(model):
            yield TransformersDecoder(model, prompts, new_tokens, pad_id)


def _draw(
    decoder: Decoder, requests: Sequence[Request], stop_ids: frozenset[int], on_draw: OnDraw | None
) -> list[Drawn]:
    limits = [request.sampling.max_tokens for request in requests]
    logits_BV = decoder.logits_BV
    rows = _make_rows(requests, logits_BV.device, max(limits))
    drawn: list[Drawn] = [([], []) for _ in requests]
    for step in range(max(limits)):
        token_B, logprob_B = sample_tokens(logits_BV, rows.temperature_B, rows.top_p_B, rows.uniform_BL[:, step])
        going = _record(rows.index_B, token_B, logprob_B, drawn, limits, stop_ids)
        if on_draw is not None:
            on_draw(drawn)
        if not any(going):
            break
        if sum(going) <= SHRINK_AT * len(going):
            kept = torch.tensor([i for i, flag in enumerate(going) if flag], device=token_B.device)
            rows, token_B = rows.keep(kept), token_B[kept]
            decoder.keep_rows(kept)
        logits_BV = decoder.step(token_B)
    return drawn


def _make_rows(requests: Sequence[Request], device: torch.device, longest: int) -> _Rows:
    return _Rows(
        index_B=torch.arange(len(requests), device=device),
        temperature_B=torch.tensor([r.sampling.temperature for r in requests], device=device),
        top_p_B=torch.tensor([r.sampling.top_p for r in requests], device=device),
        # Every request has its own random stream: what it draws does not depend on its neighbours.
        uniform_BL=torch.stack(
            [torch.rand(longest, generator=torch.Generator().manual_seed(r.seed)) for r in requests]
        ).to(device),
    )


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
