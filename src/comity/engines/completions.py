"""The words of vLLM's completions route: token ids in, token ids and log-probabilities out, and which kind of them.

A server may report several kinds of log-probabilities (vLLM's `--logprobs-mode`), and does not say which. Three
requests for one token tell them apart, see `find_kind`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from comity.types import Sampling

Kind = Literal["whole", "raw", "nucleus", "logits"]
"""`whole`: temperature-scaled, over the whole vocabulary, before top-p: what the trainer computes. `raw`: without the
temperature. `nucleus`: renormalised over the nucleus. `logits`: not normalised."""
PROBE_TEMPERATURE, PROBE_TOP_P = 0.5, 0.001
PROBE_SAMPLINGS = (
    Sampling(1.0, 1.0, 1),
    Sampling(PROBE_TEMPERATURE, 1.0, 1),
    Sampling(PROBE_TEMPERATURE, PROBE_TOP_P, 1),
)
"""What the three requests ask for: plain, with a temperature, and with a nucleus of one token besides."""
CERTAIN = 0.1
"""A token so probable that log-probabilities of all kinds are near 0 tells nothing."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a server sampled: `token_ids` (C,) with the stop token, if one came, and `logprobs` (C,)."""

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]


class MalformedReply(Exception):
    """A document is no reply to what was asked."""


class OtherModel(Exception):
    """The reply comes from another model than the one that was asked."""


def write_request(
    model: str, prompt: NDArray[np.int32], sampling: Sampling, seed: int, stop_ids: frozenset[int]
) -> dict[str, Any]:
    """Return the body of a request.

    Settings that nothing of ours uses are sent all the same: a server fills in what is left out from the model's own
    generation settings, which often have a top-k.
    """
    return {
        "model": model,
        "prompt": prompt.tolist(),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": seed,
        "stop_token_ids": sorted(stop_ids),
        "logprobs": 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def read_reply(document: Any, model: str, prompt: NDArray[np.int32]) -> Sampled:
    """Return what was sampled; raise OtherModel or MalformedReply when it is no reply to the request."""
    try:
        named, (choice,) = document["model"], document["choices"]
        if named != model:
            raise OtherModel(f"answered as {named}")
        if choice["prompt_token_ids"] != prompt.tolist():
            raise MalformedReply("read another prompt")
        tokens, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        sampled = Sampled(np.asarray(tokens, np.int32), np.asarray(logprobs, np.float32))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MalformedReply(f"sent no tokens with log-probabilities ({type(error).__name__}: {error})") from error
    if not len(sampled.token_ids) or sampled.token_ids.shape != sampled.logprobs.shape:
        raise MalformedReply(f"sent {len(sampled.token_ids)} tokens and {sampled.logprobs.size} log-probabilities")
    if not np.isfinite(sampled.logprobs).all():
        raise MalformedReply("sent log-probabilities that are no numbers")
    return sampled


def read_likeliest(document: Any) -> list[float]:
    """Return the two largest log-probabilities at the first place, the larger first; raise MalformedReply."""
    try:
        values = sorted(map(float, document["choices"][0]["logprobs"]["top_logprobs"][0].values()), reverse=True)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise MalformedReply(f"sent no likeliest tokens ({type(error).__name__}: {error})") from error
    if len(values) < 2:
        raise MalformedReply(f"sent {len(values)} of the two likeliest tokens")
    return values[:2]


def find_kind(plain: Sequence[float], heated: Sequence[float], cut: Sequence[float]) -> Kind | None:
    """Return the kind of a server's log-probabilities, None when the first token is too certain to tell.

    Each argument has the two likeliest tokens' values for one of `PROBE_SAMPLINGS`. The gap between two tokens is
    stretched by 1/T, unless the temperature was ignored. Logits are stretched and nothing else, while normalising also
    shifts them, by -log sum p^(1/T). A nucleus of one token gives it probability 1, unless the value is from before
    top-p. The comparisons leave room for the rounding of bfloat16.
    """
    gap = plain[0] - plain[1]
    if plain[0] > 0:
        return "logits"
    if -plain[0] < CERTAIN or gap < CERTAIN:
        return None
    if heated[0] - heated[1] < gap * (1 + 1 / PROBE_TEMPERATURE) / 2:
        return "raw"
    # At T = 1/2 the sum of squares is largest when all other tokens are as likely as the second.
    first, second = math.exp(plain[0]), math.exp(plain[1])
    least_shift = -math.log(first**2 + second * (1 - first))
    if heated[0] - plain[0] / PROBE_TEMPERATURE < least_shift / 2:
        return "logits"
    return "nucleus" if cut[0] > heated[0] / 2 else "whole"


def fits(kind: Kind, samplings: Sequence[Sampling]) -> bool:
    """Tell whether what a server reports is what the trainer computes, for every one of the samplings."""
    exact: Mapping[Kind, bool] = {
        "whole": True,
        "raw": all(sampling.temperature in (0.0, 1.0) for sampling in samplings),
        "nucleus": all(sampling.top_p == 1.0 for sampling in samplings),
        "logits": False,
    }
    return exact[kind]
