"""Measures of a dialogue beyond its outcome, worked by hand."""

import pytest

from comity.evaluation.quality import (
    answer_is_concrete,
    answer_is_one_sided,
    capitulated,
    concession_by_round,
    concession_gap,
    concession_mean,
    concessions,
    satisfaction_least,
    satisfaction_mean,
    satisfaction_product,
)


def make_row(*texts, completion="They share the well.", ending="agreed", satisfaction=None, **changes):
    messages = [{"seat": place % 2, "text": text, "finish": "stop"} for place, text in enumerate(texts)]
    row = {"messages": messages, "dilemma": "The well is low.", "personas": ["a", "b"], "completion": completion}
    return {**row, "ending": ending, "satisfaction": satisfaction, **changes}


def test_satisfaction_and_fairness_by_hand():
    row = make_row(satisfaction=[4.0, 2.0])
    # Mean (4 + 2) / 2; least 2; product 4/5 x 2/5 = 0.32.
    assert satisfaction_mean(row) == 3.0
    assert satisfaction_least(row) == 2.0
    assert satisfaction_product(row) == pytest.approx(0.32)


@pytest.mark.parametrize("satisfaction", [None, [3.0, None], [None, 3.0]])
def test_an_unscored_side_leaves_the_dialogue_unscored(satisfaction):
    row = make_row(satisfaction=satisfaction)
    for measure in (satisfaction_mean, satisfaction_least, satisfaction_product, capitulated):
        assert measure(row) is None


@pytest.mark.parametrize(
    ("satisfaction", "ending", "expected"),
    [
        ([5.0, 1.0], "agreed", 1.0),
        ([0.0, 3.0], "agreed", 1.0),
        ([2.0, 5.0], "agreed", 0.0),  # a poor share is still a share
        ([1.0, 1.0], "agreed", 0.0),  # nobody got anything: no one won
        ([5.0, 0.0], "no_agreement", None),
    ],
)
def test_capitulation(satisfaction, ending, expected):
    assert capitulated(make_row(satisfaction=satisfaction, ending=ending)) == expected


def test_concession_by_hand():
    row = make_row(
        "Dig a deeper shaft with pumps.",  # A's own: dig, deeper, shaft, pump
        "Plant fewer olives and keep the shaft.",  # takes 1 of 4; B's own: plant, fewer, olive
        "Olives can wait if pumps come.",  # takes 1 of 3 (olive)
        "Then pumps and a deeper shaft.",  # takes pump, deeper and shaft of A's own words
    )
    found = concessions(row)
    assert [(item.round, item.seat) for item in found] == [(1, 1), (2, 0), (2, 1)]
    own_a = {"dig", "deeper", "shaft", "pump", "wait", "come"}  # wait and come are brought in by A's second message
    assert [item.share for item in found] == pytest.approx([1 / 4, 1 / 3, 3 / len(own_a)])
    assert concession_mean(row) == pytest.approx((1 / 4 + 1 / 3 + 1 / 2) / 3)
    # B took up (1/4 + 1/2) / 2 = 3/8 on average, A 1/3.
    assert concession_gap(row) == pytest.approx(3 / 8 - 1 / 3)
    first, second = concession_by_round([row, row])
    assert (first["round"], first["share"], first["messages"]) == (1, pytest.approx(1 / 4), 2)
    assert (second["round"], second["share"], second["messages"]) == (2, pytest.approx((1 / 3 + 1 / 2) / 2), 4)


def test_words_of_the_dilemma_and_echoes_are_nobodys_own():
    row = make_row("The well is low.", "The well is low, so buy pumps.", "Buy pumps.")
    # A brought nothing in, so B had nothing to take up; A then takes both of B's words.
    assert [(item.seat, item.share) for item in concessions(row)] == [(0, 1.0)]
    assert concession_gap(row) is None
    assert concession_mean(make_row("Well.")) is None


def test_an_answer_with_one_sides_words_alone_is_one_sided():
    texts = ("Dig a deeper shaft.", "Plant fewer olives.")
    assert answer_is_one_sided(make_row(*texts, completion="They dig a deeper shaft.")) == 1.0
    assert answer_is_one_sided(make_row(*texts, completion="They dig a shaft and plant olives.")) == 0.0
    assert answer_is_one_sided(make_row(*texts, completion="They talk.")) == 0.0
    assert answer_is_one_sided(make_row(*texts, ending="no_agreement")) is None
    assert answer_is_one_sided(make_row(*texts, completion=None)) is None


def test_a_concrete_answer_names_something():
    assert answer_is_concrete(make_row(completion="Anna draws four pails on Monday.")) == 1.0
    assert answer_is_concrete(make_row(completion="They find balance and respect together.")) == 0.0
    assert answer_is_concrete(make_row(completion=None)) is None
