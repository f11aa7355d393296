"""A step needs verdicts enough, and says what they cost."""

import pytest

from comity.access import Spend
from comity.errors import JudgeError
from comity.training.verdicts import require_verdicts, summarize_spend
from comity.types import Check, Judged, Negotiation, Scenario, Verdict

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
    assert summarize_spend(before, after) == {"spend/calls": 4.0, "spend/dollars": 0.25, "spend/unpriced": 1.0}
    assert summarize_spend(after, after) == {"spend/calls": 0.0, "spend/dollars": 0.0}
