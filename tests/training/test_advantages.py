"""Group advantages against hand-worked numbers and their sum."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.training.advantages import group_advantages

NAN = float("nan")


def test_hand_worked_group():
    # mean of 1, 2, 3, 6 is 12 / 4 = 3; squares of -2, -1, 0, 3 sum to 4 + 1 + 0 + 9 = 14;
    # sample variance 14 / 3, deviation sqrt(14 / 3) = 2.160247, with 1e-4 added 2.160347
    got = group_advantages(np.array([[1.0, 2.0, 3.0, 6.0]]))
    np.testing.assert_allclose(got, [[-2 / 2.160347, -1 / 2.160347, 0.0, 3 / 2.160347]], rtol=1e-6)


def test_groups_do_not_touch_each_other():
    # mean 2, deviation of 1, 3: sqrt((1 + 1) / 1) = 1.414214, plus 1e-4 = 1.414314; 1 / 1.414314 = 0.707057
    got = group_advantages(np.array([[1.0, 3.0], [11.0, 13.0]]))
    np.testing.assert_allclose(got, [[-0.707057, 0.707057]] * 2, atol=1e-6)


@pytest.mark.parametrize("reward", [0.0, 2.1, 5.0])
@pytest.mark.parametrize("scale", ["group", "none"])
def test_group_without_spread_is_exactly_zero(reward, scale):
    # 2.1 three times: the mean in floats is not 2.1, so zero must not come from a subtraction
    got = group_advantages(np.array([[reward] * 3, [1.0, 2.0, 3.0]]), scale)
    assert got[0].tolist() == [0.0, 0.0, 0.0]
    assert (got[1] != 0).any()


def test_unscored_rollout_is_out_of_the_baseline_and_zero():
    # scored: 0, 4; mean 2, deviation sqrt(4 + 4) = 2.828427, plus 1e-4 = 2.828527; 2 / 2.828527 = 0.707082
    # with the unscored one as 0 the mean would be 4 / 3
    got = group_advantages(np.array([[0.0, NAN, 4.0]]))
    np.testing.assert_allclose(got, [[-0.707082, 0.0, 0.707082]], atol=1e-6)
    assert got[0, 1] == 0.0


@pytest.mark.parametrize("group", [[NAN, NAN, NAN], [NAN, 3.0, NAN], [2.0, NAN, 2.0]])
def test_too_few_scored_rollouts_are_exactly_zero(group):
    assert group_advantages(np.array([group])).tolist() == [[0.0, 0.0, 0.0]]


def test_failed_agreement_counts_inside_its_group():
    # "No agreement" is a true 0: mean of 0, 0, 3 is 1; squares 1 + 1 + 4 = 6, variance 6 / 2 = 3, sqrt(3) = 1.732051,
    # plus 1e-4 = 1.732151; -1 / 1.732151 = -0.577317, 2 / 1.732151 = 1.154634
    got = group_advantages(np.array([[0.0, 0.0, 3.0]]))
    np.testing.assert_allclose(got, [[-0.577317, -0.577317, 1.154634]], atol=1e-6)


def test_scale_none_leaves_the_difference():
    # mean of 1, 2, 6 is 3
    assert group_advantages(np.array([[1.0, 2.0, 6.0]]), "none").tolist() == [[-2.0, -1.0, 3.0]]


def test_input_is_left_alone():
    rewards = np.array([[1.0, NAN, 3.0]])
    group_advantages(rewards)
    np.testing.assert_array_equal(rewards, [[1.0, NAN, 3.0]])


REWARDS = st.one_of(st.just(NAN), st.floats(0, 5), st.sampled_from([0.0, 1.0, 2.5]))


@given(
    st.integers(2, 8).flatmap(
        lambda size: st.lists(st.lists(REWARDS, min_size=size, max_size=size), min_size=1, max_size=4)
    ),
    st.sampled_from(["group", "none"]),
)
def test_advantages_sum_to_zero_in_each_group(groups, scale):
    got = group_advantages(np.array(groups), scale)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got.sum(axis=1), 0, atol=1e-9)
    for rewards, advantages in zip(groups, got.tolist(), strict=True):
        scored = [r for r in rewards if not math.isnan(r)]
        mean = sum(scored) / len(scored) if scored else 0.0
        for reward, advantage in zip(rewards, advantages, strict=True):
            if math.isnan(reward):
                assert advantage == 0.0
            elif abs(reward - mean) > 1e-9:
                assert (advantage > 0) == (reward > mean)  # above the mean is pushed up, below it down
