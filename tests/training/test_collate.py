"""Micro-batches: nothing of a sample is lost or moved, whatever is shared and however it is split."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from comity.training.collate import make_micro_batches
from comity.types import TurnSample

PAD = 2


def sample(prompt, sampled, advantage=1.0, temperature=0.7, mask=None):
    tokens = np.array([*prompt, *sampled], np.int32)
    loss_mask = np.array([False] * len(prompt) + (mask or [True] * len(sampled)))
    logprobs = np.where(loss_mask, -np.arange(1, len(tokens) + 1) / 16, 0).astype(np.float32)
    return TurnSample(tokens, loss_mask, logprobs, advantage, temperature)


def reconstruct(batch, line):
    """Return the tokens of one row: its beginning and its remainder without padding."""
    owner = batch.prefix_of_B[line]
    prefix = batch.prefix_ids_CP[owner][batch.prefix_mask_CP[owner].bool()]
    suffix = batch.suffix_ids_BS[line][batch.suffix_mask_BS[line].bool()]
    return prefix.tolist(), suffix.tolist()


def test_hand_made_batch():
    shared = list(range(10, 40))  # 30 tokens
    samples = [
        sample([*shared, 5], [70, 71], advantage=0.5),
        sample([*shared, 6, 7], [80], advantage=-0.5, temperature=0.1),
    ]
    (batch,) = make_micro_batches(samples, 1000, PAD)
    assert batch.prefix_ids_CP.tolist() == [shared]
    assert batch.prefix_of_B.tolist() == [0, 0]
    assert batch.suffix_ids_BS.tolist() == [[5, 70, 71], [6, 7, 80]]
    assert batch.suffix_mask_BS.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert batch.loss_row_N.tolist() == [0, 0, 1]
    assert batch.loss_place_N.tolist() == [1, 2, 2]
    # -(place + 1) / 16: tokens 31 and 32 of the first, 32 of the second
    assert batch.sampled_logprobs_N.tolist() == [-2.0, -2.0625, -2.0625]
    assert batch.advantages_N.tolist() == [0.5, 0.5, -0.5]
    torch.testing.assert_close(batch.temperatures_N, torch.tensor([0.7, 0.7, 0.1]))


def test_without_sharing_every_row_is_whole():
    shared = list(range(10, 40))
    samples = [sample([*shared, 5], [70, 71]), sample([*shared, 6, 7], [80])]
    (batch,) = make_micro_batches(samples, 1000, PAD, share_prefixes=False)
    assert batch.prefix_ids_CP.shape == (2, 0)
    assert batch.suffix_ids_BS.tolist() == [[*shared, 5, 70, 71], [*shared, 6, 7, 80]]


def test_different_beginnings_are_padded_on_the_left_and_remainders_on_the_right():
    one, two = list(range(100, 130)), list(range(200, 226))
    samples = [sample([*one, 5], [70]), sample([*one, 5], [71, 72]), sample([*two, 6], [80]), sample([*two, 6], [81])]
    (batch,) = make_micro_batches(samples, 1000, PAD)
    # 31 shared tokens would leave no prompt token in the remainder, so 30 and 26 are shared
    assert batch.prefix_ids_CP.tolist() == [one, [PAD] * 4 + two]
    assert batch.prefix_mask_CP.tolist() == [[1] * 30, [0] * 4 + [1] * 26]
    assert batch.suffix_ids_BS.tolist() == [[5, 70, PAD], [5, 71, 72], [6, 80, PAD], [6, 81, PAD]]
    assert batch.suffix_mask_BS.tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 1, 0]]


def test_no_samples_give_no_batch():
    assert list(make_micro_batches([], 100, PAD)) == []


@st.composite
def step_samples(draw):
    """Return samples whose prompts come out of two families; a sample's advantage is its number plus 1."""
    samples = []
    for number in range(draw(st.integers(1, 9))):
        family, size = draw(st.integers(0, 1)), draw(st.integers(0, 60))
        prompt = [family + 10] * size + draw(st.lists(st.integers(0, 5), min_size=1, max_size=5))
        sampled = draw(st.lists(st.integers(0, 9), min_size=1, max_size=7))
        others = len(sampled) - 1
        mask = [True, *draw(st.lists(st.booleans(), min_size=others, max_size=others))]
        temperature = draw(st.sampled_from([0.1, 0.7, 1.0]))
        samples.append(sample(prompt, sampled, number + 1.0, temperature, mask))
    return samples


@given(step_samples(), st.integers(1, 400), st.booleans(), st.booleans())
def test_every_sample_comes_back_whole_and_once(samples, budget, share, padded):
    batches = list(make_micro_batches(samples, budget, PAD, share, padded))
    seen = []
    for batch in batches:
        lines = len(batch.suffix_ids_BS)
        held = (batch.prefix_ids_CP, batch.suffix_ids_BS)
        real = (batch.prefix_mask_CP, batch.suffix_mask_BS)
        tokens = sum(item.numel() for item in held) if padded else sum(int(item.sum()) for item in real)
        assert tokens <= budget or lines == 1
        assert sorted(set(batch.prefix_of_B.tolist())) == list(range(len(batch.prefix_ids_CP)))
        assert bool((batch.prefix_ids_CP[batch.prefix_mask_CP == 0] == PAD).all())
        assert bool((batch.suffix_ids_BS[batch.suffix_mask_BS == 0] == PAD).all())
        for line in range(lines):
            here = batch.loss_row_N == line
            number = int(batch.advantages_N[here][0]) - 1
            item = samples[number]
            seen.append(number)
            prefix, suffix = reconstruct(batch, line)
            assert prefix + suffix == item.token_ids.tolist()
            # The loss places are those of the sample, moved by the beginning; a token before the first stays here.
            places = batch.loss_place_N[here]
            assert (places + len(prefix)).tolist() == item.loss_mask.nonzero()[0].tolist()
            assert int(places[0]) >= 1
            assert batch.suffix_ids_BS[line, places].tolist() == item.token_ids[item.loss_mask].tolist()
            assert batch.sampled_logprobs_N[here].tolist() == item.logprobs[item.loss_mask].tolist()
            assert set(batch.advantages_N[here].tolist()) == {item.advantage}
            assert set(batch.temperatures_N[here].tolist()) == {float(np.float32(item.temperature))}
            assert not prefix or share
    assert sorted(seen) == list(range(len(samples)))


@given(step_samples())
def test_a_large_budget_takes_one_batch_and_sharing_never_costs_real_tokens(samples):
    (shared,) = make_micro_batches(samples, 10**6, PAD)
    (whole,) = make_micro_batches(samples, 10**6, PAD, share_prefixes=False)
    tokens = int(shared.prefix_mask_CP.sum() + shared.suffix_mask_BS.sum())
    assert tokens <= int(whole.suffix_mask_BS.sum()) == sum(len(item.token_ids) for item in samples)
