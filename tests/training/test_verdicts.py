"""A step needs verdicts enough, and says what they cost."""

import dataclasses

import numpy as np
import pytest

from comity.access import Spend
from comity.cli.progress import describe_step
from comity.errors import JudgeError
from comity.training.summaries import count_unwatched, summarize_rewards
from comity.training.verdicts import count_since, require_verdicts, summarize_passed_on, summarize_spend
from comity.types import Check, Completion, Judged, Negotiation, Scenario, Verdict

SCENARIO = Scenario("d", "d", "everyday", (), "train")


def judged(reward, ending="agreed", reason="", check=""):
    checks = (Check(1, None, check),) if check else (Check(1, True),)
    verdicts = (Verdict("j", "", reward, reason),) if ending == "agreed" else ()
    return Judged(Negotiation(SCENARIO, checks=checks, ending=ending), verdicts, reward)


def test_a_step_is_taken_up_to_the_share():
    items = [judged(None), judged(3.0), judged(0.0), judged(None)]
    require_verdicts(items, 3, 0.5)
    with pytest.raises(JudgeError, match=r"is 0\.49, but 2 of 4 rollouts of step 3 have no verdict .* checkpoint-2"):
        require_verdicts(items, 3, 0.49)


def test_the_commonest_reason_is_named():
    items = [
        judged(None, reason="timeout"),
        judged(None, "no_agreement", check="timeout"),
        judged(None, "failed"),
        judged(None),
    ]
    with pytest.raises(JudgeError, match=r"\(mostly: timeout\)") as caught:
        require_verdicts(items, 1, 0.5)
    assert "\n" not in str(caught.value)
    assert "--resume" in str(caught.value)


def test_spend_of_a_step_is_what_was_added():
    before = [Spend("r", "a", "m", calls=2, dollars=0.5)]
    after = [
        Spend("r", "a", "m", calls=5, dollars=0.75, failed=1),
        Spend("r", "b", "m", calls=1, unpriced=1),
    ]
    assert summarize_spend(before, after) == {
        "spend/calls": 4.0, "spend/dollars": 0.25, "spend/total_dollars": 0.75, "spend/unpriced": 1.0,
        "spend/failed": 1.0,
    }  # fmt: skip
    assert summarize_spend(after, after) == {"spend/calls": 0.0, "spend/dollars": 0.0, "spend/total_dollars": 0.75}


def test_answers_that_nobody_watched_are_counted():
    written = Negotiation(SCENARIO, ending="agreed", completion=Completion("By turns."))
    items = [Judged(written, (), 3.0, heldout_score=score) for score in (1.0, None, 2.0, 0.0)]
    items += [Judged(Negotiation(SCENARIO, ending="no_agreement"), (), 0.0)]
    items += [Judged(dataclasses.replace(written, ending="failed"), (), None)]
    assert count_unwatched(items) == {"unscored/heldout_share": 0.25}
    assert count_unwatched(items[4:]) == {}


def test_what_was_passed_on_is_counted_over_all_processes():
    before, after = {"agency": (10, 4)}, {"agency": (18, 6), "agreement": (8, 0)}
    first = count_since(before, after)
    assert first == {"agency": (8, 2), "agreement": (8, 0)}
    assert summarize_passed_on([first, {"agency": (8, 4), "agreement": (0, 0)}]) == {
        "passed_on/agency": 6.0, "passed_on/agency_share": 6 / 16, "passed_on/agreement": 0.0,
        "passed_on/agreement_share": 0.0,
    }  # fmt: skip
    assert summarize_passed_on([{"agency": (0, 0)}]) == {"passed_on/agency": 0.0}
    assert summarize_passed_on([{}, {}]) == {}


def test_missing_verdicts_are_told_with_the_step():
    line = describe_step({"reward/mean": 2.0, "unscored/share": 0.25, "time/step_seconds": 1.0})
    assert line == "reward 2.00  agreement –  rounds –  unscored 25 %  1.0 s"
    assert "unscored" not in describe_step({"unscored/share": 0.0})


def test_what_a_run_has_spent_is_told_with_the_step():
    line = describe_step({"reward/mean": 2.0, "spend/total_dollars": 0.5, "spend/unpriced": 3.0})
    assert line == "reward 2.00  agreement –  rounds –  spent 0.5000 dollars  3 calls of unknown price  0.0 s"
    assert "dollars" not in describe_step({"reward/mean": 2.0})


def test_uncertainty_of_scores_is_averaged_over_those_that_know_theirs():
    written = Negotiation(SCENARIO, ending="agreed", completion=Completion("By turns."))
    verdicts = [Verdict("j", "", 2.0, uncertainty=0.5), Verdict("j", "", 4.0, uncertainty=1.0), Verdict("j", "", 3.0)]
    items = [Judged(written, (verdict,), verdict.score) for verdict in verdicts]
    rewards_SG = np.array([[2.0, 4.0, 3.0]])
    found = summarize_rewards(items, rewards_SG, np.zeros((1, 3)))
    assert (found["score/uncertainty"], found["score/mean"]) == (0.75, 3.0)  # (0.5 + 1.0) / 2; (2 + 4 + 3) / 3
    assert "score/uncertainty" not in summarize_rewards(items[2:], rewards_SG[:, 2:], np.zeros((1, 1)))
