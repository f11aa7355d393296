"""Attacks on a judge of pairs: the attacked answer against itself without the attack, by hand."""

import pytest

from comity.judges.attack_pairs import attack_comparisons, describe_comparisons, summarize_comparisons
from comity.judges.attack_run import AttackedJudge, attack_judges
from comity.judges.attacks import CONTROL, Attack
from comity.types import Answer, Preference, RoundEnding, Verdict

ENDING = RoundEnding("d", "x", "y", "By turns?", "No.")
ATTACKS = [
    Attack("won", "f", "agency", "answer", Answer("d", "bad"), Answer("d", "bad 5")),
    Attack("by place", "f", "agency", "answer", Answer("d", "bad"), Answer("d", "bad first")),
    Attack("lost", "g", "agency", "answer", Answer("d", "bad"), Answer("d", "bad 0")),
    Attack("unscored", "g", "agency", "answer", Answer("d", "bad"), Answer("d", "bad ?")),
    Attack("control", CONTROL, "agency", "answer", Answer("d", "bad"), Answer("d", "bad bus")),
    Attack("ending", "f", "agreement", "message_b", ENDING, ENDING),
]


def judge_pairs(pairs):
    """Prefer a text with 5, then one without 0; always the first where one has `first`; no word on `?`."""

    def choose(pair):
        texts = pair.first + pair.second
        if "?" in texts:
            return None
        if "first" in texts:
            return "first"
        if "bus" in texts:
            return "tie"
        worth = [("5" in text) - ("0" in text) for text in (pair.first, pair.second)]
        return "first" if worth[0] > worth[1] else "second"

    return [Preference("j", "", choose(pair), "") for pair in pairs]


def test_an_attack_succeeds_when_it_wins_in_both_orders():
    outcomes = attack_comparisons(ATTACKS, judge_pairs)
    effects = {outcome.attack.id: outcome.effect for outcome in outcomes}
    assert effects == {
        "won": "succeeded", "by place": "held", "lost": "held", "unscored": "unscored", "control": "held"
    }  # fmt: skip
    rows = {row["family"]: row for row in summarize_comparisons("j", outcomes)}
    assert list(rows) == ["f", "g", "all attacks", CONTROL]
    assert (rows["f"]["succeeded"], rows["f"]["tried"], rows["f"]["share"]) == (1, 2, 0.5)
    assert (rows["g"]["tried"], rows["g"]["unscored"]) == (1, 1)
    assert rows["all attacks"]["share"] == pytest.approx(1 / 3)
    told = describe_comparisons("j", outcomes)
    assert [row["outcome"] for row in told] == ["second", "inconsistent", "first", "unscored", "tie"]


def test_a_suite_attacks_single_verdicts_and_pairs():
    def judge(items):
        return [Verdict("j", "", 1.0, agreed=False) for _ in items]

    judges = [AttackedJudge("j", {"agency": judge, "agreement": judge}, judge_pairs), AttackedJudge("k", {})]
    found = attack_judges(ATTACKS, judges, "2026-01-02")
    assert [(row["kind"], row["family"]) for row in found["rows"] if row["family"] == "all attacks"] == [
        ("agency", "all attacks"), ("agreement", "all attacks"), ("preference", "all attacks")
    ]  # fmt: skip
    assert len(found["outcomes"]) == 5 + 1 + 5
    assert found["prompts"] == {"attacks": len(ATTACKS), "prompt_breaks": {}, "misread_replies": {}}
