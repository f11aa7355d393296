"""Judges that compare two answers: order, position, length and preference for themselves, by hand."""

import json

import pytest

from comity.errors import DataError
from comity.judges.audit_pairwise import audit_preferences, read_preferences
from comity.judges.audit_statistics import Resampling

FEW = Resampling(resamples=20)


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def verdict(pair, first, preferred, a="one two", b="one", **authors):
    return {"id": pair, "dilemma": f"d{pair}", "answer_a": a, "answer_b": b, "first": first,
            "preferred": preferred} | authors  # fmt: skip


def test_order_flips_position_and_length_by_hand(tmp_path):
    rows = [
        verdict("1", "a", "a"), verdict("1", "b", "a"),  # the same in both orders
        verdict("2", "a", "a"), verdict("2", "b", "b"),  # always the first
        verdict("3", "a", "tie"), verdict("3", "b", "b"),  # a flip
        verdict("4", "a", None), verdict("4", "b", "b"),  # unscored
        verdict("5", "a", "b", b="one two three"),  # asked in one order only
    ]  # fmt: skip
    found = audit_preferences("j", read_preferences(write(tmp_path / "p.jsonl", *rows)), "j", FEW)
    assert (found["verdicts"], found["pairs_in_both_orders"]) == (9, 4)
    assert (found["order_flips"]["value"], found["order_flips"]["n"]) == (pytest.approx(2 / 3), 3)
    assert found["order_flips"]["n_unscored"] == 1
    # Verdicts but ties in both orders: a/a yes, b/a no, a/a yes, b/b yes, b/b yes, b/b yes: 5 of 6.
    assert (found["first_shown"]["value"], found["first_shown"]["n"]) == (pytest.approx(5 / 6), 6)
    # Longer is a, of pair 5 b: yes, yes, yes, no, no, no, yes: 4 of 7.
    assert (found["longer"]["value"], found["longer"]["n"]) == (pytest.approx(4 / 7), 7)
    assert found["own"]["value"] is None


def test_preference_for_its_own_answer_beside_that_of_others(tmp_path):
    mine = [verdict("1", "a", "a", author_a="j", author_b="k"), verdict("2", "a", "b", author_a="k", author_b="j"),
            verdict("3", "a", "a", author_a="j", author_b="j")]  # fmt: skip
    theirs = [verdict("1", "a", "b", author_a="j", author_b="k"), verdict("9", "a", "a", author_a="j", author_b="k")]
    first, second = (
        read_preferences(write(tmp_path / f"{name}.jsonl", *rows)) for name, rows in (("m", mine), ("t", theirs))
    )
    found = audit_preferences("j", first, "j", FEW, second)
    assert (found["own"]["value"], found["own"]["n"]) == (1.0, 2)  # a pair of two own answers says nothing
    assert (found["own_by_rivals"]["value"], found["own_by_rivals"]["n"]) == (0.0, 1)


def test_an_order_that_stands_twice_is_named(tmp_path):
    path = write(tmp_path / "p.jsonl", verdict("1", "a", "a"), verdict("1", "a", "b"))
    with pytest.raises(DataError, match="row '1': has first 'a' twice"):
        read_preferences(path)
