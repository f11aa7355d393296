"""Playing together equals playing alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.config import NegotiationConfig
from comity.engines.scripted import scripted_judge, scripted_responder
from comity.negotiation.lockstep import play
from comity.negotiation.protocol import start
from comity.types import Completion, Persona, Scenario

PERSONAS = (Persona("a", "You count."), Persona("b", "You feel."))


def scenario(number, solo=False):
    return Scenario(f"s{number}", f"Dilemma {number}.", "everyday", () if solo else PERSONAS, "dev")


def reply(request):
    # One request in eleven fails, so failures fall at every place of a dialogue.
    return Completion("", finish="error") if request.seed % 11 == 0 else f"{request.target} {request.seed % 997}"


def decide(ending):
    return (True, False, False, None)[sum((ending.message_a + ending.message_b).encode()) % 4]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), max_size=6),
    st.integers(1, 4),
    st.sampled_from(["rounds", "messages"]),
    st.integers(0, 1000),
    st.booleans(),
)
def test_many_dialogues_equal_each_alone_in_the_same_order(drawn, rounds, limit_unit, seed, always_complete):
    rules = NegotiationConfig(rounds=rounds, limit_unit=limit_unit)
    states = [start(scenario(number, solo), sample) for number, solo, sample in drawn]

    def run(some):
        return play(some, rules, scripted_responder(reply), scripted_judge(decide), seed, always_complete)

    together = run(states)
    alone = [run([state])[0] for state in states]
    assert repr(together) == repr(alone)
    assert [(s.scenario.id, s.sample) for s in together] == [(s.scenario.id, s.sample) for s in states]
    assert all(state.ending is not None for state in together)


def test_each_round_is_one_batch_of_texts_and_one_of_checks():
    texts, checks = [], []

    def respond(requests):
        texts.append([request.target for request in requests])
        return [Completion("we could") for _ in requests]

    def judge(endings):
        checks.append(len(endings))
        return scripted_judge([False] * len(endings))(endings)

    play([start(scenario(i)) for i in range(3)], NegotiationConfig(rounds=2), respond, judge)
    assert texts == [["seat_0"] * 3, ["seat_1"] * 3] * 2
    assert checks == [3, 3]


def test_a_script_is_taken_in_order():
    progress = []
    states = play(
        [start(scenario(0))],
        NegotiationConfig(rounds=2),
        scripted_responder(["a1", "b1", "a2", "b2", "joint"]),
        scripted_judge([None, True]),
        on_progress=lambda now: progress.append(len(now[0].turns)),
    )
    assert [turn.completion.text for turn in states[0].turns] == ["a1", "b1", "a2", "b2"]
    assert [(check.agreed, check.probability) for check in states[0].checks] == [(None, None), (True, 1.0)]
    assert states[0].completion.text == "joint"
    assert progress[-1] == 4


def test_a_script_that_runs_out_says_so():
    rules = NegotiationConfig(rounds=2)
    with pytest.raises(IndexError, match="holds 1 replies and number 2 was asked for"):
        play([start(scenario(0))], rules, scripted_responder(["a1"]), scripted_judge([True]))
    with pytest.raises(IndexError, match="holds 0 verdicts and number 1 was asked for"):
        play([start(scenario(0))], rules, scripted_responder(["a1", "b1"]), scripted_judge([]))


def test_a_responder_or_judge_that_drops_an_answer_is_refused():
    states = [start(scenario(0)), start(scenario(1))]
    with pytest.raises(ValueError, match="shorter"):
        play(states, NegotiationConfig(), lambda requests: [Completion("one")], scripted_judge([True]))
    with pytest.raises(ValueError, match="shorter"):
        play(states, NegotiationConfig(), scripted_responder(lambda request: "x"), lambda endings: [])


def test_no_negotiations_is_no_work():
    assert play([], NegotiationConfig(), scripted_responder([]), scripted_judge([])) == []
