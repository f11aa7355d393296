"""What the policy gives the tokens of a step once it has learnt from them; kept for the viewer."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from comity.config import NegotiationConfig
from comity.negotiation.protocol import is_solo
from comity.training.collate import make_micro_batches
from comity.training.policy import token_logprobs
from comity.training.samples import make_sample
from comity.types import Judged, TurnSample

Reread = tuple[NDArray[np.float32], ...]
"""Log-probabilities of the tokens of each message of a dialogue, then of its joint answer; empty without tokens."""


@torch.no_grad()
def reread_dialogues(
    model: PreTrainedModel, judged: Sequence[Judged], rules: NegotiationConfig, budget_tokens: int, pad_id: int
) -> list[Reread]:
    """Return the present log-probabilities of every token that a local engine sampled, trained on or not.

    They are taken as the update takes them: by the trainer, at the sampling temperature, over the whole vocabulary.
    """
    samples: list[TurnSample] = []
    places: list[list[int | None]] = []
    for item in judged:
        dialogue = list_samples(item, rules)
        known = iter(range(len(samples), len(samples) + len(dialogue)))
        places.append([None if sample is None else next(known) for sample in dialogue])
        samples.extend(sample for sample in dialogue if sample is not None)
    found: dict[int, NDArray[np.float32]] = {}
    for batch in make_micro_batches(samples, budget_tokens, pad_id):
        logprobs_N = token_logprobs(model, batch)[0].float().cpu().numpy()
        row_N = batch.loss_row_N.numpy()
        found |= {sample: logprobs_N[row_N == row] for row, sample in enumerate(batch.samples_B)}
    nothing = np.zeros(0, np.float32)
    return [tuple(nothing if place is None else found[place] for place in dialogue) for dialogue in places]


def list_samples(judged: Judged, rules: NegotiationConfig) -> list[TurnSample | None]:
    """Return a sample of each message, then of the joint answer, None for one without tokens."""
    negotiation = judged.negotiation
    temperature = (rules.completion if is_solo(negotiation.scenario) else rules.dialogue).temperature
    texts = [(turn.completion, temperature) for turn in negotiation.turns]
    if negotiation.completion is not None:
        texts.append((negotiation.completion, rules.completion.temperature))
    return [make_sample(text, 0.0, heat) if len(text.token_ids) else None for text, heat in texts]
