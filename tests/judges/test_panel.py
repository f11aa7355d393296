"""What each kind of ending earns, and who only watches."""

import pytest

from comity.config import JudgeConfig, ModelConfig
from comity.engines.local import LocalEngine
from comity.errors import ConfigError
from comity.judges.panel import Panel, build_panel
from comity.types import Answer, Check, Completion, Negotiation, Persona, RoundEnding, Scenario, Turn, Verdict

PAIR = (Persona("a", "Save water."), Persona("b", "Save time."))


def scenario(personas=PAIR):
    return Scenario("d1", "Who draws first?", "everyday", personas, "test")


def dialogue(ending, checks=(True,), answer=None, personas=PAIR):
    turns = (Turn(0, Completion("By turns?")), Turn(1, Completion("Yes.")))
    return Negotiation(
        scenario(personas),
        turns=turns
        if len(personas) == 2
        else (
            Turn(
                0,
                Completion("By turns."),
            ),
        ),
        checks=tuple(Check(i + 1, agreed) for i, agreed in enumerate(checks)),
        ending=ending,
        completion=None if answer is None else Completion(answer),
    )


def by_length(answers):
    return [Verdict("length", "", float(len(item.answer)) if item.answer else None) for item in answers]


def panel(**heldout):
    return Panel(lambda endings: [], by_length, **heldout)


@pytest.mark.parametrize(
    ("ending", "checks", "answer", "reward", "score"),
    [
        ("agreed", (False, True), "abc", 3.0, 3.0),
        ("agreed", (True,), "", None, None),  # the judge gave no score
        ("agreed", (None, True), "abc", 3.0, 3.0),  # a check without a word, then a real agreement
        ("no_agreement", (False, False), None, 0.0, None),
        ("no_agreement", (False,), "abcd", 0.0, 4.0),  # evaluation writes an answer all the same
        ("no_agreement", (False, None), None, None, None),  # the check might have seen an agreement
        ("no_agreement", (None, False), "abcd", None, 4.0),
        ("failed", (True,), None, None, None),
        ("failed", (False,), "abc", None, None),
    ],
)
def test_the_reward_of_an_ending(ending, checks, answer, reward, score):
    negotiation = dialogue(ending, checks, answer)
    (judged,) = panel().judge([negotiation])
    assert judged.negotiation is negotiation
    assert judged.reward == reward
    assert [v.score for v in judged.verdicts] == ([score] if answer is not None and ending != "failed" else [])
    assert (judged.heldout_agreed, judged.heldout_score) == (None, None)


def test_a_solo_answer_is_scored_without_any_agreement():
    def watch(endings):
        assert not endings  # a single speaker agrees with nobody
        return []

    solo = dialogue("answered", (), "ab", personas=PAIR[:1])
    (judged,) = panel(heldout_agreement=watch).judge([solo])
    assert (judged.reward, judged.heldout_agreed) == (2.0, None)


def test_verdicts_stay_with_their_dialogues_and_the_watchers_change_no_reward():
    seen = []

    def watch_answers(answers):
        seen.extend(answers)
        return [Verdict("watcher", "", 5.0 - len(item.answer)) for item in answers]

    def watch_endings(endings):
        seen.extend(endings)
        return [Verdict("watcher", "", None, agreed=i % 2 == 1) for i, _ in enumerate(endings)]

    played = [
        dialogue("agreed", (True,), "a"), dialogue("failed", (), "bb"), dialogue("no_agreement", (False,)),
        dialogue("agreed", (True,), "cccc"),
    ]  # fmt: skip
    judged = panel(heldout_agreement=watch_endings, heldout_agency=watch_answers).judge(played)
    assert [j.reward for j in judged] == [1.0, None, 0.0, 4.0]
    assert [j.heldout_score for j in judged] == [4.0, None, None, 1.0]
    assert [j.heldout_agreed for j in judged] == [False, None, True, False]
    ending = RoundEnding("Who draws first?", "Save water.", "Save time.", "By turns?", "Yes.")
    assert seen == [Answer("Who draws first?", "a"), Answer("Who draws first?", "cccc"), ending, ending, ending]


def test_nothing_played_is_nothing_judged():
    assert panel(heldout_agency=by_length).judge([]) == []


def test_an_unknown_judge_is_refused(tiny_model, tiny_tokenizer):
    engine = LocalEngine(tiny_model, tiny_tokenizer)
    judges = JudgeConfig(agency="comity/other", agreement="comity/other", heldout=False)
    with pytest.raises(ConfigError, match="judge 'comity/other' is unknown: the shipped one is comity/embedded"):
        build_panel(judges, engine, ModelConfig(name="tiny"))
