"""The counted dialogue is the one that the protocol plays."""

import pytest

from comity.config import NegotiationConfig, TrainConfig
from comity.plan.workload import count_tokens, longest_workload, mean_workload, play_scripted
from comity.types import Persona, Sampling, Scenario

SCENARIO = Scenario("s", "Who draws first? " * 10, "everyday", (Persona("a", "Save."), Persona("b", "Share.")), "train")
RULES = NegotiationConfig(rounds=7, dialogue=Sampling(0.7, 0.95, 100), completion=Sampling(0.1, 0.95, 200))


def test_tokens_of_a_chat_by_hand():
    # 42 characters at 4.2 a token, and 5 tokens for each of the two messages and for the opening of the answer.
    assert count_tokens([{"role": "user", "content": "x" * 21}] * 2) == pytest.approx(42 / 4.2 + 15)


def test_the_longest_dialogue_has_all_rounds_and_an_answer():
    work = play_scripted(SCENARIO, RULES, 10**9, 1.0)
    assert [reply.target for reply in work.replies] == ["seat_0", "seat_1"] * 7 + ["summary"]
    assert len(work.agreement_tokens) == 7
    assert len(work.agency_tokens) == 1
    # 14 messages of 100 tokens and an answer of 200.
    assert work.new_tokens == 1600
    # The window of two messages: from the third on, prompts of a seat stay of one length; the answer quotes all.
    lengths = [reply.prompt_tokens for reply in work.replies]
    assert lengths[0] < lengths[1] < lengths[2]
    assert lengths[4] == pytest.approx(lengths[2])
    assert lengths[-1] == pytest.approx(14 * 100, rel=0.25)
    assert all(0 < reply.shared_tokens < reply.prompt_tokens for reply in work.replies)


@pytest.mark.parametrize(
    ("rounds", "unit", "turns", "checks"),
    [(2, "rounds", 4, 2), (9, "rounds", 14, 7), (2, "messages", 4, 2), (9, "messages", 7, 4)],
)
def test_agreement_comes_after_the_rounds_asked_for_or_at_the_limit(rounds, unit, turns, checks):
    work = play_scripted(SCENARIO, NegotiationConfig(rounds=7, limit_unit=unit), rounds, 0.5)
    assert len(work.replies) == turns + 1
    assert len(work.agreement_tokens) == checks


def test_a_solo_answer_is_one_reply_and_no_check():
    work = play_scripted(Scenario("s", "Why?", "everyday", (), "train"), RULES, 2, 1.0)
    assert [reply.target for reply in work.replies] == ["seat_0"]
    assert work.new_tokens == 200
    assert work.agreement_tokens == ()
    assert len(work.agency_tokens) == 1


def test_the_mean_dialogue_is_shorter_than_the_longest():
    config = TrainConfig(negotiation=RULES)
    mean, longest = mean_workload(config, 2, 0.5), longest_workload(config)
    # 4 messages of 50 tokens and an answer of 100.
    assert mean.new_tokens == pytest.approx(300)
    assert mean.replies[0].prompt_tokens < longest.replies[0].prompt_tokens
    assert max(mean.agency_tokens) < max(longest.agency_tokens)
