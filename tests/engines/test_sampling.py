"""Sampling against the exact nucleus, computed apart in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from comity.engines import sampling
from comity.engines.sampling import sample_tokens

ALMOST_ONE = 1 - 2**-24  # the largest float32 below 1, which torch.rand can return


def draw(logits, temperature, top_p, uniforms):
    """Draw one token for each uniform from the same logits."""
    n = len(uniforms)
    logits_BV = torch.as_tensor(logits, dtype=torch.float32).expand(n, -1)
    uniform_B = torch.as_tensor(uniforms, dtype=torch.float32)
    return sample_tokens(logits_BV, torch.full((n,), temperature), torch.full((n,), top_p), uniform_B)


def exact_nucleus(logits, temperature, top_p):
    """Return the nucleus' tokens, most likely first, and their renormalised probabilities."""
    scaled = np.asarray(logits, np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    before = np.concatenate([[0], np.cumsum(p[order])[:-1]])
    kept = order[before < top_p]
    return kept, p[kept] / p[kept].sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.95), (1.5, 0.8), (0.1, 0.95), (2.0, 0.3)])
def test_frequencies_are_those_of_the_nucleus(temperature, top_p):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=12)
    token_B, _ = draw(logits, temperature, top_p, rng.random(20_000))
    kept, probability = exact_nucleus(logits, temperature, top_p)
    counts = np.bincount(token_B.numpy(), minlength=12)
    assert counts.sum() == counts[kept].sum()  # nothing outside the nucleus
    expected = probability * counts.sum()
    usual = expected >= 5  # the chi-square approximation wants five a cell; the rare rest is one cell
    if usual.sum() > 1:
        cells = [*counts[kept][usual]] + ([counts[kept][~usual].sum()] if not usual.all() else [])
        wanted = [*expected[usual]] + ([expected[~usual].sum()] if not usual.all() else [])
        assert chisquare(cells, wanted).pvalue > 1e-3


def test_a_nucleus_by_hand():
    # p = 0.5, 0.3, 0.15, 0.05; top-p 0.8 keeps the first two: 0.5 reaches 0.5, with 0.3 it reaches 0.8.
    # 0.79 keeps the same two; renormalised 0.625 and 0.375.
    logits = np.log([0.15, 0.5, 0.05, 0.3])
    token_B, _ = draw(logits, 1.0, 0.79, [0.0, 0.62, 0.63, 0.99, ALMOST_ONE])
    assert token_B.tolist() == [1, 1, 3, 3, 3]
    # A top-p below the largest probability keeps that token alone.
    assert set(draw(logits, 1.0, 0.4, [0.0, 0.5, ALMOST_ONE])[0].tolist()) == {1}


@pytest.mark.parametrize("size", [600, 3000])
def test_a_nucleus_wider_than_the_prefilters_is_exact(size):
    rng = np.random.default_rng(1)
    logits = np.log(np.arange(size, 0, -1))[rng.permutation(size)]  # nearly flat: 95 % needs over 256 tokens
    kept, probability = exact_nucleus(logits, 1.0, 0.95)
    assert len(kept) > sampling.PREFILTER
    # Uniforms in the middle of every cell of the distribution function, so that rounding cannot move them out.
    some = np.arange(0, len(kept), 7)
    middles = (np.cumsum(probability) - probability / 2)[some]
    token_B, logprob_B = draw(logits, 1.0, 0.95, middles)
    expected = torch.log_softmax(torch.as_tensor(logits), -1)
    assert token_B.tolist() == kept[some].tolist()
    torch.testing.assert_close(logprob_B, expected[token_B].float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("prefilter", "wider"), [(1, 2), (1, 9), (3, 1000), (7, 20), (40, 50)])
def test_the_prefilters_change_nothing(monkeypatch, prefilter, wider):
    rng = np.random.default_rng(2)
    logits_BV = torch.tensor(rng.normal(size=(200, 40)) * 2, dtype=torch.float32)
    temperature_B = torch.tensor(rng.choice([0.0, 0.3, 1.0, 2.0], 200), dtype=torch.float32)
    top_p_B = torch.tensor(rng.choice([0.2, 0.9, 1.0], 200), dtype=torch.float32)
    uniform_B = torch.tensor(rng.random(200), dtype=torch.float32)
    whole = sample_tokens(logits_BV, temperature_B, top_p_B, uniform_B)
    monkeypatch.setattr(sampling, "PREFILTER", prefilter)
    monkeypatch.setattr(sampling, "WIDER", wider)
    narrow = sample_tokens(logits_BV, temperature_B, top_p_B, uniform_B)
    assert narrow[0].tolist() == whole[0].tolist()
    assert torch.equal(narrow[1], whole[1])


@given(
    st.lists(st.floats(-8, 8, width=32, allow_subnormal=False), min_size=1, max_size=20),
    st.sampled_from([0.1, 0.7, 1.0, 3.0]),
    st.sampled_from([0.05, 0.5, 0.95, 1.0]),
    st.sampled_from([0.0, 0.25, 0.5, 0.999, ALMOST_ONE]),
)
def test_any_draw_lies_in_the_nucleus_and_has_its_log_softmax(logits, temperature, top_p, uniform):
    (token,), (logprob,) = draw(logits, temperature, top_p, [uniform])
    kept, _ = exact_nucleus(logits, temperature, min(top_p + 1e-5, 1.0))  # rounding may let one more token in
    ties = {i for i, value in enumerate(logits) if value == logits[int(token)]}
    assert ties & set(kept.tolist())
    expected = torch.log_softmax(torch.tensor(logits, dtype=torch.float64) / temperature, -1)[token]
    torch.testing.assert_close(logprob.double(), expected, atol=1e-4, rtol=1e-5)


def test_temperature_zero_takes_the_largest_logit_at_temperature_one():
    logits = [0.5, 3.0, -1.0, 2.9]
    token_B, logprob_B = draw(logits, 0.0, 0.1, [0.0, 0.5, ALMOST_ONE])
    assert token_B.tolist() == [1, 1, 1]
    expected = torch.log_softmax(torch.tensor(logits), -1)[1]
    torch.testing.assert_close(logprob_B, expected.expand(3))


def test_rows_of_one_batch_keep_their_own_settings():
    logits_BV = torch.log(torch.tensor([0.1, 0.6, 0.3])).expand(4, -1)
    temperature_B = torch.tensor([0.0, 1.0, 1.0, 0.5])
    top_p_B = torch.tensor([1.0, 1.0, 0.5, 1.0])
    token_B, logprob_B = sample_tokens(logits_BV, temperature_B, top_p_B, torch.tensor([0.95, 0.95, 0.95, 0.95]))
    # Most likely first: 0.6, 0.9, 1.0. At temperature 0.5 the squares 0.36, 0.09, 0.01 of 0.46: 0.783, 0.978.
    assert token_B.tolist() == [1, 0, 1, 2]
    expected = np.log([0.6, 0.1, 0.6, 0.09 / 0.46])
    np.testing.assert_allclose(logprob_B.numpy(), expected, atol=1e-6)


def test_the_ends_of_the_unit_interval_draw_the_first_and_last_token():
    logits = np.log([0.4, 0.3, 0.2, 0.1])
    assert draw(logits, 1.0, 1.0, [0.0, ALMOST_ONE])[0].tolist() == [0, 3]
    assert draw(logits, 1.0, 0.85, [0.0, ALMOST_ONE])[0].tolist() == [0, 2]


@pytest.mark.parametrize("size", [200, 2000])
def test_a_token_of_no_probability_is_never_drawn(size):
    rng = np.random.default_rng(3)
    logits_BV = torch.tensor(rng.normal(size=(500, size)) * 2, dtype=torch.float32)
    logits_BV[:, size // 2 :] = -torch.inf
    ones = torch.ones(500)
    for uniform in (0.0, ALMOST_ONE):
        token_B, logprob_B = sample_tokens(logits_BV, ones, ones, ones * uniform)
        assert int(token_B.max()) < size // 2
        assert bool(logprob_B.isfinite().all())


def test_half_precision_logits_are_computed_in_float32():
    logits_BV = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    args = torch.full((3,), 0.7), torch.full((3,), 0.95), torch.tensor([0.1, 0.5, 0.9])
    token_B, logprob_B = sample_tokens(logits_BV, *args)
    expected = torch.log_softmax(logits_BV.float() / 0.7, -1).gather(1, token_B[:, None])[:, 0]
    assert logprob_B.dtype == torch.float32
    torch.testing.assert_close(logprob_B, expected)
