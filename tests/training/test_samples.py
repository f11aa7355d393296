"""Training samples: which turns carry loss, and that their tokens, mask and log-probabilities lie side by side."""

from dataclasses import replace

import numpy as np
import pytest

from comity.config import NegotiationConfig, OptimizationConfig
from comity.training.samples import make_samples
from comity.types import Completion, Judged, Negotiation, Persona, Sampling, Scenario, Turn

RULES = NegotiationConfig(dialogue=Sampling(0.7, 0.95, 8), completion=Sampling(0.1, 0.95, 8))
PAIR = (Persona("a", "cost"), Persona("b", "quality"))


def completion(first, prompt=3, size=2):
    """Return a completion with prompt tokens first, first + 1, ... and sampled tokens 100 + first, ..."""
    return Completion(
        text=f"text {first}",
        prompt_ids=np.arange(first, first + prompt, dtype=np.int32),
        token_ids=np.arange(100 + first, 100 + first + size, dtype=np.int32),
        logprobs=-np.arange(1, size + 1, dtype=np.float32) / 8,
    )


def dialogue(ending="agreed", personas=PAIR):
    scenario = Scenario("d1/p1", "Who gets the well?", "everyday", personas, "train")
    if not personas:
        only = completion(50)
        return Negotiation(scenario, turns=(Turn(0, only),), ending="answered", completion=only)
    turns = tuple(Turn(i % 2, completion(10 * (i + 1))) for i in range(4))
    return Negotiation(scenario, turns=turns, ending=ending, completion=completion(50) if ending == "agreed" else None)


def judged(negotiation, reward=3.0):
    return Judged(negotiation, (), reward)


def starts(samples):
    """Return the first prompt token of every sample: 10, 20, 30, 40 for the turns and 50 for the joint answer."""
    return [int(sample.token_ids[0]) for sample in samples]


@pytest.mark.parametrize(
    ("seats", "tokens", "expected"),
    [
        ("policy", "dialogue", [10, 30]),
        ("both", "dialogue", [10, 20, 30, 40]),
        ("policy", "completion", [50]),
        ("both", "completion", [50]),
        ("policy", "both", [10, 30, 50]),
        ("both", "both", [10, 20, 30, 40, 50]),
    ],
)
def test_seats_and_tokens_choose_the_trained_turns(seats, tokens, expected):
    settings = OptimizationConfig(seats=seats, tokens=tokens)
    samples = make_samples([judged(dialogue())], np.array([0.5]), settings, RULES)
    assert starts(samples) == expected
    assert [sample.temperature for sample in samples] == [0.1 if start == 50 else 0.7 for start in expected]
    assert {sample.advantage for sample in samples} == {0.5}  # all turns of a rollout share its advantage


@pytest.mark.parametrize("tokens", ["dialogue", "completion", "both"])
@pytest.mark.parametrize("seats", ["policy", "both"])
def test_solo_answer_is_trained_once_under_every_setting(seats, tokens):
    settings = OptimizationConfig(seats=seats, tokens=tokens)
    samples = make_samples([judged(dialogue(personas=()))], np.array([1.0]), settings, RULES)
    assert starts(samples) == [50]
    assert samples[0].temperature == 0.1  # a solo answer is drawn with the sampling of completions


def test_no_agreement_trains_the_dialogue_only():
    item = judged(dialogue("no_agreement"), 0.0)
    settings = OptimizationConfig(tokens="both")
    assert starts(make_samples([item], np.array([-1.0]), settings, RULES)) == [10, 30]
    settings = OptimizationConfig(tokens="completion")
    assert make_samples([item], np.array([-1.0]), settings, RULES) == []


def test_unscored_rollouts_are_dropped_and_the_others_keep_their_advantage():
    items = [judged(dialogue(), 1.0), judged(dialogue(), None), judged(dialogue("no_agreement"), 0.0)]
    samples = make_samples(items, np.array([0.25, 7.0, -0.25]), OptimizationConfig(), RULES)
    assert [sample.advantage for sample in samples] == [0.25, 0.25, -0.25, -0.25]


def test_rollouts_without_advantage_stay_among_the_samples():
    # Their tokens count in the normalisation over the whole step.
    assert len(make_samples([judged(dialogue())], np.array([0.0]), OptimizationConfig(), RULES)) == 2


def test_tokens_mask_and_logprobs_lie_side_by_side():
    samples = make_samples([judged(dialogue())], np.array([0.5]), OptimizationConfig(), RULES)
    first, second = samples
    # turn 0: prompt 10 11 12, sampled 110 111; turn 2: prompt 30 31 32, sampled 130 131
    assert first.token_ids.tolist() == [10, 11, 12, 110, 111]
    assert second.token_ids.tolist() == [30, 31, 32, 130, 131]
    assert first.loss_mask.tolist() == [False, False, False, True, True]
    assert first.logprobs.tolist() == [0, 0, 0, -0.125, -0.25]
    assert (first.token_ids.dtype, first.loss_mask.dtype, first.logprobs.dtype) == (np.int32, np.bool_, np.float32)


def test_text_without_tokens_is_not_trained():
    # A human or a script in seat 0: no tokens were sampled.
    played = dialogue()
    turns = (Turn(0, Completion("by hand")), *played.turns[1:])
    samples = make_samples([judged(replace(played, turns=turns))], np.array([1.0]), OptimizationConfig(), RULES)
    assert starts(samples) == [30]


def test_greedy_tokens_are_compared_at_temperature_one():
    rules = NegotiationConfig(dialogue=Sampling(0.0, 1.0, 8))
    samples = make_samples([judged(dialogue())], np.array([1.0]), OptimizationConfig(), rules)
    assert [sample.temperature for sample in samples] == [1.0, 1.0]


def test_advantages_must_go_with_the_rollouts():
    with pytest.raises(ValueError, match="zip"):
        make_samples([judged(dialogue())], np.array([1.0, 2.0]), OptimizationConfig(), RULES)
