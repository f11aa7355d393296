"""Signs of gaming, counted by hand."""

import pytest

from comity.judges.signs import (
    agreement_without_plan,
    copied_share,
    cut_off,
    distinct_2,
    message_words,
    parroting,
    repetition,
    summarize_signs,
)  # fmt: skip

DILEMMA = "Lena, a bridge engineer in Hamburg, finds a crack. Closing the bridge cuts the town off from the hospital."
BARN = ("we share the barn today", "yes we share the barn now", "we share the barn today")


def make_dialogue(*texts, ending="agreed", finishes=()):
    finishes = finishes or ["stop"] * len(texts)
    messages = [
        {"seat": place % 2, "text": text, "finish": finish}
        for place, (text, finish) in enumerate(zip(texts, finishes, strict=True))
    ]
    return {"dilemma": DILEMMA, "ending": ending, "messages": messages}


def test_parroting_by_hand():
    # Message 2 has 6 words, 3 four-grams; only "we share the barn" stands in message 1: 1/3.
    # Message 3 has 2 four-grams; only "we share the barn" stands in message 2: 1/2. Mean (1/3 + 1/2) / 2 = 5/12.
    assert parroting(make_dialogue(*BARN)) == pytest.approx(5 / 12)


def test_repetition_by_hand():
    # 2 + 3 + 2 = 7 four-grams; different ones: 2 of message 1, 2 new ones of message 2, none of message 3: 1 - 4/7.
    assert repetition(make_dialogue(*BARN)) == pytest.approx(3 / 7)


def test_case_and_punctuation_do_not_hide_a_copy():
    assert copied_share("WE share -- the barn!", "We share the barn.") == 1.0


def test_own_words_are_not_parroted():
    assert parroting(make_dialogue("take the old boat home", "no", "take the old boat home")) == 0.0


def test_lengths_and_cuts():
    dialogue = make_dialogue("one two three", "one", finishes=["stop", "length"])
    assert message_words(dialogue) == 2.0
    assert cut_off(dialogue) == 0.5


def test_distinct_2_by_hand():
    # Pairs: (a b), (b a), (a b) and in the second dialogue (b a): 2 different of 4.
    assert distinct_2([make_dialogue("a b a b"), make_dialogue("b a")]) == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "Yes, I agree with your approach. Sounds fair, let's work together.",
        "I agree. Open communication and mutual respect matter most, so that all parties feel heard.",
        "We have a deal, Lena!",
    ],
)
def test_vague_agreement_is_without_plan(text):
    assert agreement_without_plan(make_dialogue("I propose the ferry at 9.", text, text)) is True


@pytest.mark.parametrize(
    "text",
    [
        "Agreed, the ferry at 9.",
        "Agreed, the ferry on Monday.",
        "Agreed, we close the bridge to lorries and warn the hospital.",
        "Agreed: divers weld steel plates under cover of fog while ferries carry commuters.",
    ],
)
def test_concrete_agreement_has_a_plan(text):
    assert agreement_without_plan(make_dialogue("Yes.", text, "Yes, I agree.")) is False


def test_only_agreed_dialogues_can_lack_a_plan():
    assert agreement_without_plan(make_dialogue("Yes.", "Yes.", ending="no_agreement")) is None


def test_summary_of_signs():
    agreed = [make_dialogue("Yes.", "Yes."), make_dialogue("At 9 then.", "Fine.")]
    signs = summarize_signs([*agreed, make_dialogue("No.", ending="no_agreement"), make_dialogue(ending="failed")])
    # Of two agreed dialogues one lacks a plan. Words: (1 + (3 + 1) / 2 + 1) / 3 = 4/3; the silent one is left out.
    assert signs["without_plan"] == 0.5
    assert signs["words"] == pytest.approx(4 / 3)
    assert set(signs) == {"repetition", "parroting", "words", "distinct_2", "without_plan", "cut_off"}


def test_summary_without_agreement_or_dialogues():
    assert "without_plan" not in summarize_signs([make_dialogue("No.", ending="no_agreement")])
    assert summarize_signs([]) == {}
