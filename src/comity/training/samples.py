"""Turn judged negotiations into training samples: each trained turn with its own prompt."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from comity.config import NegotiationConfig, OptimizationConfig
from comity.negotiation.protocol import is_solo
from comity.types import Completion, Judged, TurnSample


def make_samples(
    judged: Sequence[Judged],
    advantages: NDArray[np.float64],
    settings: OptimizationConfig,
    rules: NegotiationConfig,
) -> list[TurnSample]:
    """Return the samples of all scored rollouts; `advantages` (N,) go with `judged`.

    `settings.seats` chooses whose messages carry loss, `settings.tokens` whether messages, the joint answer or both
    do. A solo answer counts as dialogue. Only tokens that a local engine sampled can be trained on.
    """
    samples: list[TurnSample] = []
    for item, advantage in zip(judged, advantages.tolist(), strict=True):
        if item.reward is None:
            continue
        for completion, temperature in _trained_completions(item, settings, rules):
            if len(completion.token_ids):
                samples.append(make_sample(completion, advantage, temperature))
    return samples


def _trained_completions(
    item: Judged, settings: OptimizationConfig, rules: NegotiationConfig
) -> Iterable[tuple[Completion, float]]:
    negotiation = item.negotiation
    solo = is_solo(negotiation.scenario)
    sampling = rules.completion if solo else rules.dialogue
    for turn in negotiation.turns:
        if message_carries_loss(turn.seat, solo, settings):
            yield turn.completion, sampling.temperature
    if negotiation.completion is not None and answer_carries_loss(solo, settings):
        yield negotiation.completion, rules.completion.temperature


def message_carries_loss(seat: int, solo: bool, settings: OptimizationConfig) -> bool:
    """Tell whether the messages of a seat are trained on; a solo answer is the one message of its dialogue."""
    return (settings.tokens in ("dialogue", "both") or solo) and (seat == 0 or settings.seats == "both")


def answer_carries_loss(solo: bool, settings: OptimizationConfig) -> bool:
    """Tell whether the joint answer is trained on, beside the messages."""
    return settings.tokens in ("completion", "both") and not solo


def make_sample(completion: Completion, advantage: float, temperature: float) -> TurnSample:
    """Return the sample of one text: every sampled token carries loss, its prompt none."""
    prompt, sampled = completion.prompt_ids, completion.token_ids
    zeros = np.zeros(len(prompt), np.float32)
    return TurnSample(
        token_ids=np.concatenate([prompt, sampled]).astype(np.int32),
        loss_mask=np.concatenate([np.zeros(len(prompt), bool), np.ones(len(sampled), bool)]),
        logprobs=np.concatenate([zeros, completion.logprobs]).astype(np.float32),
        advantage=advantage,
        # Greedy tokens have no sampling distribution; the policy itself stands in for it.
        temperature=temperature or 1.0,
    )
