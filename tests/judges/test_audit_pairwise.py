"""Judges that compare two answers: order, position, length and preference for themselves, by hand."""

import json

import pytest

from comity.errors import DataError
from comity.judges.audit_pairwise import ask_in_both_orders, audit_preferences, pair_rows, read_preferences
from comity.judges.audit_rows import AuditRow
from comity.judges.audit_statistics import Resampling
from comity.types import Answer, Preference

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


def test_answers_to_one_dilemma_are_paired_in_a_round(tmp_path):
    # Three answers to d, two to e, one to f: three pairs, one, none; scores 0 1 1 | 2 unscored | 5.
    texts = {"d": ("a", "b b", "c"), "e": ("x", "y"), "f": ("z",)}
    rows = [
        AuditRow(text, Answer(dilemma, text), {"author": "me" if text == "a" else None})
        for dilemma, answers in texts.items() for text in answers
    ]  # fmt: skip
    pairs = pair_rows(rows, [0.0, 1.0, 1.0, 2.0, None, 5.0], "author", seed=0)
    assert sorted(sorted((pair["answer_a"], pair["answer_b"])) for pair in pairs) == [
        ["a", "b b"], ["a", "c"], ["b b", "c"], ["x", "y"]
    ]  # fmt: skip
    assert pairs == pair_rows(rows, [0.0, 1.0, 1.0, 2.0, None, 5.0], "author", seed=0)
    # a is worse than both others; equal and unscored pairs say nothing.
    better = [(pair[f"answer_{pair['better']}"]) for pair in pairs if "better" in pair]
    assert sorted(better) == ["b b", "c"]
    assert sum("author_a" in pair or "author_b" in pair for pair in pairs) == 2
    assert not any("better" in pair for pair in pair_rows(rows, None, "author", seed=0))

    def prefer_shorter_then_first(asked):
        choices = ["second" if len(pair.second) < len(pair.first) else "first" for pair in asked]
        return [Preference("j", "", choice, "") for choice in choices]

    told = ask_in_both_orders(pairs, prefer_shorter_then_first)
    assert len(told) == 8
    found = audit_preferences("j", read_preferences(write(tmp_path / "p.jsonl", *told)), "me", FEW)
    # Pairs of one length change with the order: a/c and x/y; of the two others the shorter wins in both orders.
    assert (found["order_flips"]["value"], found["order_flips"]["n"]) == (0.5, 4)
    # First shown: four of four in the flipping pairs, two of four in the others.
    assert (found["first_shown"]["value"], found["longer"]["value"]) == (0.75, 0.0)
    # Better is b b against a (shorter: no, no) and c against a (by order: yes once): 1 of 4.
    assert (found["better"]["value"], found["better"]["n"]) == (0.25, 4)
