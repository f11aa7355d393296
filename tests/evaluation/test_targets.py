"""Targets against results written by hand."""

import pytest

from comity.evaluation.targets import check_targets, find_difference, find_win_rate


def player(model, **means):
    measures = {name: {"mean": mean, "low": low, "high": high} for name, (mean, low, high) in means.items()}
    return {"model": model, "opponent": model, "measures": measures}


def rate(first, second, value, low, high):
    return {"first": first, "second": second, "rate": value, "low": low, "high": high}


CONFLICT = {
    "task": "conflict",
    "decoding": "sampled",
    "players": [
        player(
            "base",
            agreement_rate=(0.80, 0.7, 0.9),
            rounds_to_agreement=(2.0, 1.8, 2.2),
            heldout_agreement_rate=(0.4, 0.3, 0.5),
        ),
        player(
            "multi",
            agreement_rate=(0.88, 0.8, 0.95),
            rounds_to_agreement=(1.6, 1.5, 1.7),
            heldout_agreement_rate=(0.35, 0.3, 0.5),
        ),
        {**player("multi", agreement_rate=(0.1, 0.0, 0.2)), "opponent": "base"},  # cross-play counts for nothing here
    ],
    "comparisons": [
        {"measure": "agreement_rate", "first": "base", "second": "multi", "difference": 0.08, "low": 0.02, "high": 0.14}
    ],
    # The base lost 70 % of the pairs, so the other won them.
    "win_rates": [rate("base", "multi", 0.30, 0.20, 0.36), rate("multi", "single", 0.75, 0.60, 0.85)],
}
ALONE = {
    "task": "conflict_alone", "decoding": "greedy", "players": [], "comparisons": [],
    "win_rates": [rate("multi", "single", 0.50, 0.4, 0.6)],
}  # fmt: skip
ABILITY = {
    "models": [
        {"model": "base", "change": None},
        {"model": "multi-seed-0", "change": {"difference": -0.03, "low": -0.05, "high": -0.01}},
        {"model": "multi-seed-1", "change": {"difference": 0.015, "low": -0.01, "high": 0.04}},
        {"model": "single-seed-0", "change": {"difference": -0.5, "low": -0.6, "high": -0.4}},
    ]
}
NAMES = ("base", "single", "multi")


def test_each_target_by_hand():
    over_base, over_single, rounds, agreement, alone, open_ended, ifeval = check_targets(
        [CONFLICT, ALONE], ABILITY, NAMES
    )
    assert (over_base.value, over_base.low, over_base.high) == pytest.approx((0.70, 0.64, 0.80))
    assert (over_base.holds, over_base.surely) == (True, True)  # 64 % is above 63 %
    assert (over_single.holds, over_single.surely) == (True, False)  # 75 % reaches 72.8 %, 60 % does not
    # 1.6 / 2.0 - 1 = -20 %: not yet a quarter.
    assert rounds.value == pytest.approx(-0.2)
    assert (rounds.holds, rounds.surely) == (False, None)
    # 88 % is below 97 %, but 8 points are more than 6; from 2 points on it is not sure.
    assert (agreement.value, agreement.holds, agreement.surely) == (0.88, True, False)
    assert agreement.note == "base 80.0 %, +8.0 points; held-out judge 40.0 → 35.0 %"
    assert (alone.value, alone.holds, alone.surely) == (0.5, True, False)
    assert (open_ended.value, open_ended.holds) == (None, None)
    # (-3 + 1.5) / 2 = -0.75 points; the single agent's seed is none of the arm's.
    assert (ifeval.value, ifeval.low, ifeval.high) == pytest.approx((-0.0075, -0.05, 0.04))
    assert (ifeval.holds, ifeval.surely) == (True, False)


def test_a_quarter_fewer_rounds_and_a_rate_of_97_percent_hold_exactly():
    players = [
        player("base", agreement_rate=(0.96, 0.9, 1.0), rounds_to_agreement=(2.0, 1.8, 2.2)),
        player("multi", agreement_rate=(0.97, 0.97, 1.0), rounds_to_agreement=(1.5, 1.5, 1.7)),
    ]
    _, _, rounds, agreement, *_ = check_targets([{**CONFLICT, "players": players, "comparisons": []}], None, NAMES)
    assert rounds.holds is True
    assert (agreement.holds, agreement.surely) == (True, True)


def test_nothing_measured_is_said_and_not_failed():
    targets = check_targets([], None, NAMES)
    assert len(targets) == 7
    assert {(target.value, target.holds, target.surely) for target in targets} == {(None, None, None)}


def test_signs_turn_with_the_order():
    assert find_difference(CONFLICT, "agreement_rate", "multi", "base") == (-0.08, -0.14, -0.02)
    assert find_win_rate(CONFLICT, "single", "multi") == pytest.approx((0.25, 0.15, 0.40))
    assert find_win_rate(CONFLICT, "single", "base") is None
