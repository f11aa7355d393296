"""Draw tokens exactly from the nucleus without sorting the vocabulary."""

import torch
from torch import Tensor

PREFILTER = 64
"""How many of the largest logits are looked at first."""
WIDER = 1024
"""How many are looked at for a nucleus that is wider; one that is wider still is sorted whole."""
BLOCK = 128


def sample_tokens(
    logits_BV: Tensor, temperature_B: Tensor, top_p_B: Tensor, uniform_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the nucleus' distribution function at `uniform_B`.

    Returns token ids (B,) and their log-probabilities (B,) under the temperature-scaled policy over the whole
    vocabulary. A row with temperature 0 takes the largest logit; its log-probability is at temperature 1. The nucleus
    is the smallest set of most likely tokens whose mass reaches top-p (Holtzman et al. 2020); rows whose nucleus is
    wider than the prefilters are sorted whole, so the result is exact.
    """
    greedy_B = temperature_B == 0
    # float32 temperatures make float32 of lower precision, in the same pass.
    narrow_BV = logits_BV.float() if logits_BV.dtype == torch.float64 else logits_BV
    scaled_BV = narrow_BV / torch.where(greedy_B, 1.0, temperature_B)[:, None]
    logprob_BV = scaled_BV.log_softmax(-1)
    # In order of the logits: two of them can have log-probabilities that are rounded to the same number.
    index_BK = _largest(scaled_BV, PREFILTER)
    place_B, covered_B = _invert(logprob_BV.gather(1, index_BK).exp(), top_p_B, uniform_B)
    token_B = index_BK.gather(1, place_B[:, None])[:, 0]
    token_B = torch.where(greedy_B, index_BK[:, 0], token_B)
    wide = (~covered_B & ~greedy_B).nonzero()[:, 0]
    looked_at = index_BK.shape[1]
    for size in (WIDER, scaled_BV.shape[1]):
        if not wide.numel() or not looked_at < size <= scaled_BV.shape[1]:
            continue
        order_WK = _sorted(scaled_BV[wide], size)
        place_W, covered_W = _invert(logprob_BV[wide].gather(1, order_WK).exp(), top_p_B[wide], uniform_B[wide])
        token_B[wide] = order_WK.gather(1, place_W[:, None])[:, 0]
        wide, looked_at = wide[~covered_W], size
    return token_B, logprob_BV.gather(1, token_B[:, None])[:, 0]


def _sorted(values_WV: Tensor, size: int) -> Tensor:
    if size < values_WV.shape[1]:
        return values_WV.topk(size, dim=-1).indices
    return values_WV.sort(dim=-1, descending=True, stable=True).indices


def _largest(values_BV: Tensor, count: int) -> Tensor:
    # The K largest values lie in the K blocks with the largest maxima: only those blocks are searched.
    rows, size = values_BV.shape
    if size % BLOCK or size // BLOCK <= count:
        return values_BV.topk(min(count, size), dim=-1).indices
    blocks_BNW = values_BV.view(rows, size // BLOCK, BLOCK)
    block_BK = blocks_BNW.amax(-1).topk(count, dim=-1).indices
    values_BKW = blocks_BNW.gather(1, block_BK[:, :, None].expand(-1, -1, BLOCK))
    place_BK = values_BKW.reshape(rows, -1).topk(count, dim=-1).indices
    return block_BK.gather(1, place_BK // BLOCK) * BLOCK + place_BK % BLOCK


def _invert(probability_BK: Tensor, top_p_B: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    # Kept: every token before which less than top-p of the mass lies. Covered: the nucleus ends inside these K.
    cumulative_BK = probability_BK.cumsum(-1)
    kept_BK = (cumulative_BK - probability_BK) < top_p_B[:, None]
    covered_B = (cumulative_BK[:, -1] >= top_p_B) | ~kept_BK[:, -1]
    mass_B1 = cumulative_BK.gather(1, kept_BK.sum(-1, keepdim=True) - 1)
    # The first place that reaches the nucleus' mass: what follows it has no probability left.
    last_B = (cumulative_BK < mass_B1).sum(-1)
    place_B = torch.minimum((cumulative_BK <= uniform_B[:, None] * mass_B1).sum(-1), last_B)
    return place_B, covered_B
