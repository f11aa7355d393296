"""The policy loss against numbers worked by hand."""

from math import log

import pytest
import torch

from comity.config import OptimizationConfig
from comity.training.loss import policy_loss

SETTINGS = OptimizationConfig(clip_low=0.2, clip_high=0.28, importance_cap=2.0)
OLD = [-1.0, -2.0]


def compute(ratios, advantages, mismatches=(1.0, 1.0), settings=SETTINGS, step_tokens=4, reference=None):
    """Return the output and the gradient of the log-probabilities, for given ratios new / old and old / sampled."""
    new = torch.tensor([old + log(r) for old, r in zip(OLD, ratios, strict=True)], requires_grad=True)
    sampled = torch.tensor([old - log(m) for old, m in zip(OLD, mismatches, strict=True)])
    ref = None if reference is None else new.detach() + torch.tensor([log(r) for r in reference])
    output = policy_loss(new, torch.tensor(OLD), sampled, torch.tensor(advantages), settings, step_tokens, ref)
    output.loss.backward()
    return output, new.grad.tolist()


def test_two_tokens_clipped_on_both_sides():
    # token 0: ratio 1.5 above 1.28, advantage 2:  min(3.0, 2.56) = 2.56
    # token 1: ratio 0.5 below 0.8, advantage -1:  min(-0.5, -0.8) = -0.8
    # loss -(2.56 - 0.8) / 4 = -0.44; both are clipped, so no gradient is left
    output, gradient = compute([1.5, 0.5], [2.0, -1.0])
    assert float(output.loss.detach()) == pytest.approx(-0.44, abs=1e-6)
    assert gradient == [0.0, 0.0]
    assert output.sums["clip_share"] == 2
    assert output.n_tokens == 2


def test_the_other_sides_are_not_clipped():
    # token 0: ratio 1.5, advantage -1: min(-1.5, -1.28) = -1.5; token 1: ratio 0.5, advantage 2: min(1.0, 1.6) = 1.0
    # loss -(-1.5 + 1.0) / 4 = 0.125; gradient of a token: -ratio * advantage / 4 = 0.375 and -0.25
    output, gradient = compute([1.5, 0.5], [-1.0, 2.0])
    assert float(output.loss.detach()) == pytest.approx(0.125, abs=1e-6)
    assert gradient == pytest.approx([0.375, -0.25], abs=1e-6)
    assert output.sums["clip_share"] == 0


def test_ratios_between_the_bounds_are_left_alone():
    # 1.25 < 1.28 and 0.85 > 0.8: loss -(1.25 * 1 - 0.85 * 1) / 4 = -0.1
    output, gradient = compute([1.25, 0.85], [1.0, -1.0])
    assert float(output.loss.detach()) == pytest.approx(-0.1, abs=1e-6)
    assert gradient == pytest.approx([-1.25 / 4, 0.85 / 4], abs=1e-6)
    assert output.sums["clip_share"] == 0


def test_importance_weight_is_truncated_above_only():
    # ratio 1; old / sampled 3 is cut to 2, 0.5 stays
    # loss -(1 * 2 + 3 * 0.5) / 4 = -0.875; gradient -1 * 2 / 4 = -0.5 and -3 * 0.5 / 4 = -0.375
    output, gradient = compute([1.0, 1.0], [1.0, 3.0], mismatches=[3.0, 0.5])
    assert float(output.loss.detach()) == pytest.approx(-0.875, abs=1e-6)
    assert gradient == pytest.approx([-0.5, -0.375], abs=1e-6)


def test_importance_cap_zero_switches_the_weight_off():
    # loss -(1 + 3) / 4 = -1
    settings = OptimizationConfig(importance_cap=0.0)
    output, gradient = compute([1.0, 1.0], [1.0, 3.0], mismatches=[3.0, 0.5], settings=settings)
    assert float(output.loss.detach()) == pytest.approx(-1.0, abs=1e-6)
    assert gradient == pytest.approx([-0.25, -0.75], abs=1e-6)


def test_metrics_of_the_mismatch():
    output, _ = compute([1.0, 1.0], [1.0, 3.0], mismatches=[3.0, 0.5])
    assert output.sums["mean_ratio"] == pytest.approx(3.5, abs=1e-5)  # a sum: 3 + 0.5, before truncation
    assert output.largest_ratio == pytest.approx(3.0, abs=1e-5)
    # k3: (3 - 1 - ln 3) + (0.5 - 1 - ln 0.5) = 0.901388 + 0.193147 = 1.094535
    assert output.sums["kl"] == pytest.approx(1.094535, abs=1e-5)
    assert "reference_kl" not in output.sums


def test_metric_of_a_tiny_mismatch_keeps_its_digits():
    # k3 of d is d^2 / 2 + d^3 / 6 + ...; d = 1e-3 in float32 arithmetic: 5.0017e-7 a token
    old = torch.tensor([-1e-3, -1e-3])
    output = policy_loss(old, old, torch.tensor([-2e-3, -2e-3]), torch.ones(2), SETTINGS, 2)
    assert output.sums["kl"] == pytest.approx(2 * 5.0017e-7, rel=1e-3)


def test_kl_penalty_is_k3():
    # No advantage. d = reference - new = ln 2 and -ln 2:
    # 2 - ln 2 - 1 = 0.306853 and 0.5 + ln 2 - 1 = 0.193147, sum 0.5; loss 0.04 * 0.5 / 4 = 0.005
    # gradient with respect to new: coefficient * (1 - e^d) / 4 = 0.04 * (1 - 2) / 4 = -0.01 and 0.04 * 0.5 / 4 = 0.005
    settings = OptimizationConfig(kl_coefficient=0.04)
    output, gradient = compute([1.0, 1.0], [0.0, 0.0], settings=settings, reference=[2.0, 0.5])
    assert float(output.loss.detach()) == pytest.approx(0.005, abs=1e-7)
    assert gradient == pytest.approx([-0.01, 0.005], abs=1e-7)
    assert output.sums["reference_kl"] == pytest.approx(0.5, abs=1e-6)


def test_importance_weight_does_not_scale_the_penalty():
    # the penalty of 0.5 from above stays, whatever the mismatch
    settings = OptimizationConfig(kl_coefficient=0.04)
    output, _ = compute([1.0, 1.0], [0.0, 0.0], [3.0, 0.5], settings, reference=[2.0, 0.5])
    assert float(output.loss.detach()) == pytest.approx(0.005, abs=1e-7)


def test_tokens_of_the_whole_step_normalise():
    output, _ = compute([1.0, 1.0], [1.0, 1.0], step_tokens=10)
    assert float(output.loss.detach()) == pytest.approx(-0.2, abs=1e-7)  # -(1 + 1) / 10, not / 2


def test_zero_advantage_gives_exactly_zero_gradient():
    output, gradient = compute([1.1, 0.5], [0.0, 0.0], mismatches=[1.3, 0.7])
    assert float(output.loss.detach()) == 0.0
    assert gradient == [0.0, 0.0]


def test_first_epoch_has_the_gradient_of_the_plain_policy_gradient():
    # ratio exactly 1: gradient -advantage / tokens, although the loss value itself tells nothing
    _, gradient = compute([1.0, 1.0], [2.0, -2.0])
    assert gradient == [-0.5, 0.5]
