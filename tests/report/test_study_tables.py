"""What only a study's page shows: zero rewards, changes, words for targets, averaged curves."""

import pytest

from comity.report.study_figures import average_seeds, draw_curves
from comity.report.study_tables import tabulate_changes, tabulate_targets, tell_targets
from comity.report.zero_rewards import summarize_zero_rewards, tell_zero_rewards


def rollout(scenario, reward, advantage, ending="agreed"):
    return {"scenario": scenario, "reward": reward, "advantage": advantage, "ending": ending}


def test_zero_rewards_by_hand():
    first = [
        # Nobody agreed: no spread, nothing to learn.
        rollout("a", 0.0, 0.0, "no_agreement"),
        rollout("a", 0.0, 0.0, "no_agreement"),
        # One failed among those that agreed; one lies at the mean.
        rollout("b", 0.0, -1.5, "no_agreement"),
        rollout("b", 4.0, 1.5),
        rollout("b", 2.0, 0.0),
        rollout("b", None, 0.0),  # unscored: left out
    ]
    # The same scenario in another step is another group.
    second = [rollout("a", 0.0, -0.5, "no_agreement"), rollout("a", 3.0, 0.5), rollout("a", 3.0, 0.5)]
    found = summarize_zero_rewards([first, second])
    # 8 scored: 2 flat, 2 failed in mixed groups, 3 used, 1 at the mean.
    assert found.rollouts == 8
    assert (found.flat, found.failed, found.used, found.at_mean) == (0.25, 0.25, 0.375, 0.125)
    # Advantages -1.5 and -0.5: mean -1, deviation sqrt((0.25 + 0.25) / 1) = 0.7071.
    assert found.failed_advantage == pytest.approx(-1.0)
    assert found.failed_deviation == pytest.approx(0.7071, abs=1e-4)
    assert tell_zero_rewards("multi", found) == (
        "multi", "8", "25.0 %", "25.0 %", "37.5 %", "12.5 %", "−1.00 ± 0.71",
    )  # fmt: skip
    assert summarize_zero_rewards([[rollout("a", None, 0.0)]]) is None


def target(name, value, holds, surely, low=None, high=None):
    return {"name": name, "wanted": "at least 63.0 %", "paper": "63.0 %", "value": value, "low": low, "high": high,
            "holds": holds, "surely": surely, "note": ""}  # fmt: skip


def test_targets_in_words():
    targets = [
        target("a", 0.7, True, True, 0.65, 0.75),
        target("b", 0.7, True, False, 0.5, 0.8),
        target("c", 0.7, True, None),
        target("d", 0.5, False, False, 0.4, 0.6),
        target("e", None, None, None),
    ]
    assert tell_targets(targets) == "3 of 5 targets hold, 1 does not, 1 was not measured."
    rows = tabulate_targets(targets).rows
    assert [row[4] for row in rows] == ["yes", "yes, not surely", "yes, no interval", "no", "not measured"]
    assert rows[1][2:4] == ("70.0 %", "50.0 to 80.0 %")
    assert rows[4][2:4] == ("not measured", "–")


def test_changes_are_told_from_the_arm_that_the_ablation_changes():
    def comparison(first, second, difference, low, high):
        return {"measure": "agreement_rate", "first": first, "second": second, "difference": difference, "low": low,
                "high": high, "p_adjusted": 0.01}  # fmt: skip

    entries = [
        {
            "comparisons": [
                comparison("base", "multi", 0.5, 0.4, 0.6),
                comparison("multi", "bare", -0.1, -0.2, 0.05),
                comparison("other", "multi", 0.25, 0.2, 0.3),
            ]
        }
    ]
    assert tabulate_changes(entries, "multi").rows == (
        ("bare", "Agreement rate", "−10.0 pp", "−20.0 to +5.0 pp", "0.010"),
        ("other", "Agreement rate", "−25.0 pp", "−30.0 to −20.0 pp", "0.010"),
    )


def test_seeds_are_averaged_where_they_are_known():
    runs = [
        [{"step": 1.0, "reward/group_mean": 1.0}, {"step": 2.0, "reward/group_mean": 2.0, "agreement/rate": 0.5}],
        [{"step": 1.0, "reward/group_mean": 3.0, "agreement/rate": None}],
    ]
    assert average_seeds(runs) == [
        {"step": 1.0, "reward/group_mean": 2.0},
        {"step": 2.0, "reward/group_mean": 2.0, "agreement/rate": 0.5},
    ]


def test_arms_stand_beside_each_other_and_silent_ones_are_left_out():
    points = [{"step": float(step), "reward/group_min": 0.0, "reward/group_mean": 1.0, "reward/group_max": 2.0,
               "agreement/rate": 0.5} for step in (1, 2)]  # fmt: skip
    drawn = draw_curves({"multi": points, "solo": points}, "training", ["multi"])
    assert [item.name for item in drawn] == ["training-reward-multi", "training-reward-solo", "training-agreement"]
    words = [text.get_text() for axes in drawn[2].figure.axes for text in axes.texts]
    assert words == ["multi 50 %"]
    assert draw_curves({"multi": [{"step": 1.0}]}, "training", ["multi"]) == []
