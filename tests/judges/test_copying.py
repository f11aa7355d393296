"""Copy rules on texts whose 4-grams are counted by hand."""

import pytest

from comity.judges.copying import find_answer_copy, find_ending_copy, ngram_copy_share, repeated_share

PLAN = (
    "The village digs a second well by the mill before the rains, the cooperative pays for the pump, and every "
    "household sends one adult for two days of work."
)
RESTATED = (
    "I accept that: a second well at the mill before the rains, the pump paid by the cooperative, and two days of "
    "work from one adult in each household. I will draw up the list on Sunday."
)


@pytest.mark.parametrize(
    ("text", "source", "share"),
    [
        ("a b c d e f g", "a b c d e", 2 / 4),  # abcd, bcde of abcd, bcde, cdef, defg
        ("A, b! C? D.", "x a b c d y", 1.0),  # case and punctuation do not count
        ("a b c d", "a b c e d", 0.0),
        ("a b c", "a b c", 1.0),  # too short for a 4-gram: copied only when equal
        ("a b c", "a b c d", 0.0),
        ("", "", 0.0),
        ("", "a b c d", 0.0),
        ("a b c d a b c d", "a b c d", 2 / 5),  # abcd counts twice among abcd, bcda, cdab, dabc, abcd
        ("Ａ b c d", "a b c d", 1.0),  # a full-width letter hides nothing
        ("a\u200b b c d", "a b c d", 1.0),  # nor does an invisible character
        ("а Ь с Н", "a Ь c h", 1.0),  # nor Cyrillic letters that look like these
        ("a\u0301 b\u0336 c\u0489 d", "a b c d", 1.0),  # nor marks on the letters
    ],
)
def test_the_share_of_copied_4_grams_by_hand(text, source, share):
    assert ngram_copy_share(text, source) == share


def test_shorter_grams_can_be_asked_for():
    assert ngram_copy_share("a b c", "b c d", n=2) == 1 / 2


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a b c d e", 0.0),
        ("go go go go go go", 1 - 1 / 3),  # three 4-grams, one kind
        ("a b c d a b c d", 1 - 4 / 5),
        ("no no no", 0.0),
        ("", 0.0),
    ],
)
def test_the_share_of_repeated_4_grams_by_hand(text, share):
    assert repeated_share(text) == share


@pytest.mark.parametrize(
    "message_b",
    [
        PLAN,
        PLAN.upper().replace(",", " -"),
        PLAN + " Agreed.",  # 27 of 28 of B's 4-grams
        " ".join(PLAN.split()[:15]),  # only words of A, though not all
        PLAN.replace("second", "sec\u200bond"),
    ],
)
def test_a_near_verbatim_copy_is_no_agreement(message_b):
    assert find_ending_copy(PLAN, message_b, 0.8) == "message B copies message A"


def test_a_copy_with_words_around_it_is_found_by_both_directions():
    # A has 8 words: 5 grams. B is A and 2 more words: 7 grams, 5 of them A's: (5/7 + 5/5) / 2 = 0.857.
    message_a = "we dig one more well by the mill"
    message_b = message_a + " yes please"
    assert ngram_copy_share(message_b, message_a) == 5 / 7
    assert find_ending_copy(message_a, message_b, 0.85) == "message B copies message A"
    assert find_ending_copy(message_a, message_b, 0.86) == ""


def test_an_honest_restatement_of_a_plan_is_no_copy():
    assert find_ending_copy(PLAN, RESTATED, 0.8) == ""
    assert 0 < ngram_copy_share(RESTATED, PLAN) < 0.5  # it does carry A's words
    assert (
        find_ending_copy(PLAN, "Yes. The well, the pump from the cooperative, two days from us: we agree.", 0.8) == ""
    )


def test_the_limit_itself_is_still_allowed():
    # 5 grams, 4 of them in A; A has 8 grams, 4 of them in B: 4/5 is not above 0.8, nor is the mean 0.65.
    message_a = "a b c d e f g h i j k"
    message_b = "a b c d e f g z"
    assert find_ending_copy(message_a, message_b, 0.8) == ""
    assert find_ending_copy(message_a, message_b, 0.79) == "message B copies message A"


def test_a_message_that_says_one_thing_over_and_over_is_refused():
    message = "we should talk about it " * 4
    assert find_ending_copy("Who pays?", message, 0.8) == "message B repeats itself"
    assert find_answer_copy(message, "Who pays?", 0.8) == "the answer repeats itself"


def test_an_answer_that_is_the_dilemma_is_refused_and_one_about_it_is_not():
    dilemma = "A village has one well and two fields. Who may draw first in the dry month?"
    assert find_answer_copy(dilemma, dilemma, 0.8) == "the answer copies the dilemma"
    assert find_answer_copy("A village has one well and two fields, so " + PLAN, dilemma, 0.8) == ""
    assert find_answer_copy("", dilemma, 0.8) == ""
