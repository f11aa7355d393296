"""What an audit reads, its figures on rows small enough to work by hand, and a whole run with made judges."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import DataError
from comity.judges.audit import audit_authors, audit_raters, average_by_level, measure_length, retest
from comity.judges.audit_endings import audit_endings, name_kind
from comity.judges.audit_rows import (
    AuditRow,
    AuditTable,
    Rater,
    choose_balanced,
    read_audit_rows,
    read_column,
    read_verdicts,
)
from comity.judges.audit_run import AuditRequest, run_audit
from comity.judges.audit_statistics import Resampling
from comity.types import Answer, RoundEnding, Verdict

FEW = Resampling(resamples=20)


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answer_row(name, words=1, **fields):
    fields = {"id": name, "dilemma": f"dilemma {name}", "answer": "word " * words} | fields
    return AuditRow(name, Answer(fields["dilemma"], fields["answer"]), fields)


def ending_row(name, **fields):
    ending = RoundEnding(f"dilemma {name}", "x", "y", "By turns?", "Yes.")
    return AuditRow(name, ending, {"id": name} | fields)


def table_of(kind, rows, **values):
    raters = [
        Rater(name.replace("_", " "), "labels" if name == "labels" else "judge", tuple(v)) for name, v in values.items()
    ]
    return AuditTable(kind, tuple(rows), tuple(raters))


def dialogue(scenario, completion="Answer.", ending="agreed", **fields):
    messages = [{"seat": 0, "text": "By turns?"}, {"seat": 1, "text": "No."}, {"seat": 0, "text": "Then by days."}]
    row = {"scenario": scenario, "sample": 0, "dilemma": "d", "personas": ["x", "y"], "messages": messages,
           "completion": completion, "ending": ending, "score": 3.0, "heldout_score": 1.0,
           "heldout_agreed": None}  # fmt: skip
    return row | fields


# Rows and verdicts


def test_the_shipped_rows_are_those_held_out():
    rows = read_audit_rows("agreement")
    assert {row.fields["part"] for row in rows} == {"heldout"}
    assert all(row.item.dilemma for row in rows)


def test_a_folder_gives_the_dialogues_of_every_step(tmp_path):
    for step in (1, 2):
        write(tmp_path / f"step-00000{step}.jsonl", dialogue("s1"), dialogue("s2", completion=None))
    (tmp_path / "notes.txt").write_text("no rows")
    rows = read_audit_rows("agency", tmp_path)
    assert [row.id for row in rows] == ["step-000001/s1#0", "step-000002/s1#0"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has nothing to judge for agency"):
        read_audit_rows("agency", tmp_path / "empty")


def test_dialogues_of_a_run_bring_their_verdicts_along(tmp_path):
    path = write(tmp_path / "rows.jsonl", dialogue("s1"), dialogue("s2", completion=None, ending="no_agreement"),
                 dialogue("s3", ending="failed"))  # fmt: skip
    answers = read_audit_rows("agency", path)
    assert [(row.id, row.words) for row in answers] == [("s1#0", 1), ("s3#0", 1)]  # one has no answer to judge
    endings = read_audit_rows("agreement", path)
    assert endings[0].item == RoundEnding("d", "x", "y", "Then by days.", "No.")
    assert read_column("agreement", endings, "agreed", "training", "judge").values == (1.0, 0.0, None)


def test_several_ratings_of_a_row_count_by_mean_or_majority():
    rows = [answer_row("a", human=[1, 2, None]), answer_row("b", human=4), answer_row("c")]
    rater = read_column("agency", rows, "human", "human", "human")
    assert rater.values == (1.5, 4.0, None)
    assert rater.repeats == ((1.0, 2.0, None), (4.0,), (None,))
    rows = [ending_row("a", human=[True, False]), ending_row("b", human=[True, True, False])]
    assert read_column("agreement", rows, "human", "human", "human").values == (None, 1.0)


def test_verdicts_are_joined_by_id_and_repeats_kept_in_order(tmp_path):
    rows = [answer_row("a"), answer_row("b"), answer_row("c")]
    path = write(tmp_path / "v.jsonl", {"id": "b", "score": 2, "repeat": 1}, {"id": "b", "score": 5, "repeat": 0},
                 {"id": "a", "score": None, "repeat": 0})  # fmt: skip
    rater = read_verdicts("agency", rows, "j", [path])
    assert rater.values == (None, 5.0, None)
    assert rater.repeats == ((None,), (5.0, 2.0), (None,))
    again = read_verdicts("agency", rows, "j", [path, write(tmp_path / "w.jsonl", {"id": "b", "score": 1})])
    assert again.repeats[1] == (5.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "z", "score": 1}], "has none of the rows' ids"),
        ([{"id": "a"}], "row 'a', field score: is missing"),
        ([{"id": "a", "score": 6}], "row 'a', field score: is 6; expected a number from 0 to 5, or null"),
        ([{"id": "a", "score": True}], "is True; expected a number"),
        ([{"id": "a", "score": 1, "repeat": "x"}], "field repeat: is 'x'"),
    ],
)
def test_bad_verdicts_are_named(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_verdicts("agency", [answer_row("a")], "j", [write(tmp_path / "v.jsonl", *rows)])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "dilemma": "d"}, "row 1, field answer: is missing"),
        ({"id": "a", "dilemma_id": "none", "answer": "x"}, "row 1, field dilemma: is missing"),
        (dialogue("s", completion=None), "has nothing to judge for agency"),
        (dialogue("s", sample="x"), "row 1, field sample: is 'x'"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read_audit_rows("agency", write(tmp_path / "rows.jsonl", row))


def test_a_row_that_stands_twice_needs_a_repeat(tmp_path):
    row = {"id": "a", "dilemma": "d", "answer": "x", "score": 1}
    with pytest.raises(DataError, match="'a' stands twice"):
        read_audit_rows("agency", write(tmp_path / "rows.jsonl", row, row))
    path = write(tmp_path / "rows.jsonl", row | {"repeat": 0}, row | {"repeat": 1})
    assert [found.id for found in read_audit_rows("agency", path)] == ["a"]


def test_a_field_that_no_row_has_is_named():
    with pytest.raises(DataError, match="field 'people', named for human, is in no row"):
        read_column("agency", [answer_row("a")], "people", "human", "human")


@given(st.lists(st.one_of(st.none(), st.floats(0, 5)), max_size=30), st.integers(1, 4), st.integers(0, 5))
def test_balanced_sampling_takes_at_most_so_many_of_each_level(values, per_level, seed):
    places = choose_balanced(values, per_level, seed)
    assert places == sorted(set(places)) == choose_balanced(values, per_level, seed)
    levels = [int(values[i] + 0.5) for i in places]
    everywhere = [int(value + 0.5) for value in values if value is not None]
    for level in set(everywhere):
        assert levels.count(level) == min(per_level, everywhere.count(level))


# Figures


def test_means_by_level_of_the_other():
    rows = [answer_row(name) for name in "abcd"]
    table = table_of("agency", rows, x=[0.2, 0.4, 3.0, None], y=[1.0, 2.0, 5.0, 4.0])
    levels = average_by_level(table, table.raters[1], table.raters[0], FEW)
    assert [(row["level"], row["mean"]["value"], row["mean"]["n"]) for row in levels] == [(0, 1.5, 2), (3, 5.0, 1)]


def test_repeats_are_compared_in_all_pairs():
    rater = Rater("j", "judge", (1.0, 2.0, 3.0), ((1.0, 1.0, 2.0), (2.0, None), (3.0,)))
    row = retest(AuditTable("agency", tuple(answer_row(name) for name in "abc"), (rater,)), rater, FEW)
    # Pairs 1-1, 1-2, 1-2 of the first row, one unscored of the second, none of the third.
    assert row["exact"]["value"] == pytest.approx(1 / 3)
    assert (row["exact"]["n"], row["exact"]["n_unscored"]) == (3, 1)


def test_readers_have_an_alpha():
    # Two readers: 1 1, 0 0, 1 0: 4 of 6 values pair alike; 3 ones, 3 zeros: 1 - 5 * 1 / (3 * 3) = 4 / 9.
    rater = Rater("human", "human", (1.0, 0.0, None), ((1.0, 1.0), (0.0, 0.0), (1.0, 0.0)))
    table = AuditTable("agreement", tuple(ending_row(name) for name in "abc"), (rater,))
    assert retest(table, rater, FEW)["readers_alpha"] == pytest.approx(4 / 9)


def test_length_bias_alone_and_given_the_labels():
    rows = [answer_row(name, words) for name, words in zip("abcd", (1, 2, 3, 4), strict=True)]
    table = table_of("agency", rows, labels=[1.0, 3.0, 2.0, 4.0], judge=[2.0, 1.0, 4.0, 3.0])
    row = measure_length(table, table.raters[1], FEW)
    # Ranks as in the test of partial_spearman, with words for x, the judge for y and the labels for z.
    assert row["spearman"]["value"] == pytest.approx(0.6)
    assert row["given"]["labels"]["value"] == pytest.approx(1.0)


def test_preference_for_itself_is_what_the_others_do_not_see():
    rows = [answer_row(name, author=author) for name, author in zip("abcd", ("me", "me", "you", "you"), strict=True)]
    table = table_of("agency", rows, labels=[3.0, 4.0, 2.0, 1.0], judge=[5.0, 4.0, 2.0, 0.0])
    means, preferences = audit_authors(table, "author", {"judge": "me"}, FEW)
    # Judge less labels: +2, 0 on its own, 0, -1 on others: 1 - (-0.5) = 1.5.
    assert [(row["rater"], row["author"], row["preference"]["value"]) for row in preferences] == [("judge", "me", 1.5)]
    assert [row["mean"]["value"] for row in means] == [3.5, 4.5, 1.5, 1.0]
    assert audit_authors(table, "nothing", {}, FEW) == ([], [])


def test_endings_by_kind():
    rows = [
        ending_row("a", reason="Both accept."),
        ending_row("b", reason="B gives in bitterly."),
        ending_row("c", reason="Unwilling capitulation."),
        ending_row("d", kind="a joke"),
        ending_row("e"),
    ]
    table = table_of("agreement", rows, labels=[1.0, 0.0, 0.0, 0.0, None], judge=[1.0, 1.0, 0.0, None, 1.0])
    found = {row["kind"]: row["said_yes"] for row in audit_endings(table, table.raters[0], FEW)}
    assert list(found) == ["agreed", "not agreed", "a joke", "capitulation"]
    assert found["agreed"]["value"] == 1.0
    assert (found["not agreed"]["value"], found["not agreed"]["n_unscored"]) == (0.5, 1)
    assert found["capitulation"]["value"] == 0.5
    assert found["a joke"]["value"] is None


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"reason": "Debate, no solution."}, "still debating"),
        ({"reason": "Vague values, no decision."}, "no plan"),
        ({"reason": "B postpones the decision."}, "postponed"),
        ({"reason": "B counters with a different plan."}, "different plans"),
        ({"reason": "B adds a condition"}, "new condition"),
        ({"reason": "Core issue of doors unclear."}, "other"),
        ({}, "other"),
        ({"kind": "mine", "reason": "Debate"}, "mine"),
    ],
)
def test_the_kind_of_an_ending(fields, kind):
    assert name_kind(fields) == kind


def test_shipped_endings_mostly_have_a_kind():
    rows = [
        row for row in read_audit_rows("agreement") if not row.fields["agreed"] and row.fields["source"] == "written"
    ]
    kinds = [name_kind(row.fields) for row in rows]
    assert kinds.count("capitulation") >= 5
    assert kinds.count("other") < len(rows) / 4


# A whole run


def test_a_run_writes_verdicts_and_figures(tmp_path):
    source = write(
        tmp_path / "rows.jsonl",
        *[{"id": str(i), "dilemma": f"d{i // 2}", "answer": "word " * (i + 1), "gold": i % 6} for i in range(12)],
    )
    asked = []

    def build(kind, name, repeat):
        def judge(answers):
            asked.append((name, len(answers)))
            return [
                Verdict(name, "", None if len(a.answer.split()) == 12 else len(a.answer.split()) % 6) for a in answers
            ]

        return judge

    request = AuditRequest("agency", tmp_path / "out", source, judges=("x", "y/z"), labels="gold", resampling=FEW)
    audit = run_audit(request, build, "2026-01-01")
    assert json.loads((tmp_path / "out/audit.json").read_text(encoding="utf-8")) == audit
    assert (audit["rows"], audit["dilemmas"], audit["date"]) == (12, 6, "2026-01-01")
    assert [row["rater"] for row in audit["raters"]] == ["labels", "x", "y/z"]
    assert [(row["first"], row["second"]) for row in audit["pairs"]] == [
        ("labels", "x"),
        ("labels", "y/z"),
        ("x", "y/z"),
    ]
    assert audit["pairs"][2]["exact"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 11, "n_unscored": 1}
    # The verdicts can be read again in place of the judge.
    verdicts = {"x": (tmp_path / "out/verdicts/x.jsonl",), "y/z": (tmp_path / "out/verdicts/y-z.jsonl",)}
    again = run_audit(
        dataclasses.replace(request, judges=None, verdicts=verdicts, out=tmp_path / "again"), build, "2026-01-01"
    )
    assert again == audit
    assert asked == [("x", 12), ("y/z", 12)]


def test_rows_are_balanced_before_judges_are_asked(tmp_path):
    rows = [{"id": str(i), "dilemma": f"d{i}", "answer": "a", "gold": [0, 0, 0, 5, 5, None][i]} for i in range(6)]
    source, asked = write(tmp_path / "rows.jsonl", *rows), []

    def build(kind, name, repeat):
        def judge(answers):
            asked.append((name, len(answers)))
            return [Verdict(name, "", float(i % 2)) for i, _ in enumerate(answers)]

        return judge

    request = AuditRequest(
        "agency", tmp_path / "out", source, judges=("x", "y"), labels="gold", per_level=1, resampling=FEW
    )
    assert run_audit(request, build, "2026-01-01")["rows"] == 2
    assert asked == [("x", 2), ("y", 2)]
    asked.clear()
    # Balanced by a judge: it reads all rows, the other one those that are left, one of each score 0 and 1.
    balanced = run_audit(dataclasses.replace(request, balance="y"), build, "2026-01-01")
    assert asked == [("y", 6), ("x", 2)]
    assert sorted(point["values"][1] for point in balanced["points"]) == [0.0, 1.0]


def test_dialogues_of_a_run_are_audited_without_a_judge(tmp_path):
    source = write(tmp_path / "after.jsonl", dialogue("s1"), dialogue("s2"))
    audit = run_audit(AuditRequest("agency", tmp_path / "out", source, resampling=FEW), None, "2026-01-01")
    assert [row["rater"] for row in audit["raters"]] == ["training", "held-out"]
    assert audit["pairs"][0]["exact"]["value"] == 0.0


def test_pairwise_verdicts_are_audited_alone(tmp_path):
    row = {"id": "1", "dilemma": "d", "answer_a": "x", "answer_b": "y z"}
    path = write(tmp_path / "p.jsonl", row | {"first": "a", "preferred": "a"}, row | {"first": "b", "preferred": "b"})
    audit = run_audit(AuditRequest("agency", tmp_path / "out", pairwise={"j": path}), None, "2026-01-01")
    assert audit["raters"] == audit["pairs"] == audit["points"] == []
    assert audit["source"] == "p.jsonl"
    assert audit["pairwise"][0]["order_flips"]["value"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"judges": (), "columns": {"x": "gold"}, "casino": Path("c.json")},
            "read by a judge that is asked; add --judge",
        ),
        ({"judges": ()}, "raters are labels: an audit needs two"),
        ({"judges": ("x", "x")}, "rater 'x' is named twice"),
        ({"judges": ("x",), "balance": "z", "per_level": 1}, "--balance z: is no rater here; choose among labels, x"),
    ],
)
def test_a_request_that_cannot_be_met_asks_no_judge(tmp_path, change, message):
    source = write(tmp_path / "rows.jsonl", {"id": "a", "dilemma": "d", "answer": "x", "gold": 1})
    request = AuditRequest("agency", tmp_path / "out", source, labels="gold", **change)
    with pytest.raises(DataError, match=message):
        run_audit(request, None, "2026-01-01")
    assert not (tmp_path / "out").exists()


def test_every_section_counts_what_is_unscored():
    rows = [answer_row(name, i + 1) for i, name in enumerate("abcd")]
    sections = audit_raters(table_of("agency", rows, x=[1.0, None, 3.0, 4.0], y=[1.0, 2.0, None, 5.0]), FEW)
    assert sections["raters"][0]["mean"]["n_unscored"] == 1
    assert sections["pairs"][0]["kappa"]["n_unscored"] == 2
    assert sections["length"][0]["given"]["y"]["n_unscored"] == 2
