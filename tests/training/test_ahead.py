"""The dialogues of later steps begin when the lag allows it, with the policy of that moment, and never sooner."""

import threading

import pytest

from comity.training.ahead import PlayAhead, PlayStopped


def prepare_with(policy):
    """Return what notes the policy version at hand-over, and plays later."""

    def prepare(step):
        version = policy["version"]
        return lambda: (step, version)

    return prepare


@pytest.mark.parametrize(
    ("lag", "versions"),
    [
        (0, [0, 1, 2, 3, 4]),  # step n is played by the policy that has taken n - 1 steps
        (1, [0, 0, 1, 2, 3]),  # step 2 is begun with step 1, step 3 with step 2, ...
        (2, [0, 0, 0, 1, 2]),
        (9, [0, 0, 0, 0, 0]),
    ],
)
def test_the_lag_alone_says_which_policy_plays_a_step(lag, versions):
    policy, plays, seen = {"version": 0}, PlayAhead(lag, 5), []
    for step in range(1, 6):
        seen.append(plays.take(step, prepare_with(policy)))
        policy["version"] = step
    plays.close()
    assert seen == list(enumerate(versions, 1))


def test_steps_after_the_last_are_not_begun():
    begun = []
    plays = PlayAhead(3, 2)
    for step in (1, 2):
        plays.take(step, lambda later: lambda: begun.append(later))
    plays.close()
    assert sorted(begun) == [1, 2]


def test_a_run_that_resumes_begins_in_the_middle():
    plays = PlayAhead(1, 9)
    assert plays.take(5, prepare_with({"version": 4})) == (5, 4)
    assert plays.take(6, prepare_with({"version": 5})) == (6, 4)
    plays.close()


def test_an_error_comes_with_the_step_that_had_it():
    def prepare(step):
        def play():
            if step == 2:
                raise ValueError("two")
            return step

        return play

    plays = PlayAhead(2, 3)
    assert plays.take(1, prepare) == 1
    with pytest.raises(ValueError, match="two"):
        plays.take(2, prepare)
    plays.close()


def test_closing_stops_what_is_under_way():
    going, plays = threading.Event(), PlayAhead(1, 2)

    def prepare(step):
        def play():
            while step == 2:
                going.set()
                plays.check()  # what `close` is noticed by
            return step

        return play

    assert plays.take(1, prepare) == 1
    assert going.wait(60)
    plays.close()
    with pytest.raises(PlayStopped):
        plays.check()
