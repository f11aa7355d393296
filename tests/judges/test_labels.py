"""The shipped labels keep their promises; a bad row is named by file, line and field."""

import json

import numpy as np
import pytest

from comity.engines.scripted import scripted_responder
from comity.errors import DataError
from comity.judges.labels import count_unlabelled, read_labels, shipped_labels
from comity.judges.llm import llm_agency_judge
from comity.judges.score import score_file
from comity.scenarios.load import load_dilemmas
from comity.types import Answer, RoundEnding

ANSWER = {
    "id": "a1", "dilemma_id": "mine", "dilemma": "Who draws first?", "answer": "By turns.", "score": 3,
    "author": "me", "source": "written", "part": "train",
}  # fmt: skip
ENDING = {
    "id": "e1", "dilemma_id": "mine", "dilemma": "Who draws first?", "persona_a": "x", "persona_b": "y",
    "message_a": "By turns?", "message_b": "Yes, from Monday.", "agreed": True, "author": "me", "source": "written",
    "part": "heldout",
}  # fmt: skip


@pytest.fixture(scope="module", params=["agency", "agreement"])
def shipped(request):
    return request.param, read_labels(request.param)


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_there_are_rows_enough(shipped):
    _, rows = shipped
    assert len(rows) >= 600
    assert len({row.dilemma_id for row in rows}) >= 100
    assert len({row.id for row in rows}) == len(rows)


def test_both_parts_have_every_label(shipped):
    kind, rows = shipped
    for part in ("train", "heldout"):
        assert {row.target for row in rows if row.part == part} == set(range(6) if kind == "agency" else range(2))


def test_no_heldout_dilemma_is_among_training_rows(shipped):
    _, rows = shipped
    splits = {row["id"]: row["split"] for row in load_dilemmas()}
    for part, allowed in (("train", {"train"}), ("heldout", {"dev", "test"})):
        assert {splits[row.dilemma_id] for row in rows if row.part == part} <= allowed
    train, heldout = ({row.item.dilemma for row in rows if row.part == part} for part in ("train", "heldout"))
    assert not train & heldout
    ids = [{row.dilemma_id for row in rows if row.part == part} for part in ("train", "heldout")]
    assert not ids[0] & ids[1]


def test_parts_share_no_author_of_texts(shipped):
    # A model's texts have no author among us: readers 11 to 14 labelled some of either part without knowing which.
    _, rows = shipped
    written = [row for row in rows if row.source == "written"]
    train, heldout = ({row.author for row in written if row.part == part} for part in ("train", "heldout"))
    assert train
    assert heldout
    assert not train & heldout


def test_no_text_stands_in_both_parts(shipped):
    _, rows = shipped
    train, heldout = ({row.item for row in rows if row.part == part} for part in ("train", "heldout"))
    assert not train & heldout


def test_length_hardly_tells_the_label(shipped):
    kind, rows = shipped
    written = [row for row in rows if row.part == "train" and row.source == "written"]
    assert len(written) > 200
    target = [row.target for row in written]
    for name in ("answer",) if kind == "agency" else ("message_a", "message_b"):
        words = [len(getattr(row.item, name).split()) for row in written]
        assert abs(np.corrcoef(words, target)[0, 1]) < 0.2, name


@pytest.mark.parametrize("kind", ["agency", "agreement"])
def test_shipped_rows_give_a_reason(kind):
    lines = shipped_labels(kind).read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["reason"].strip() for line in lines)


def test_a_row_of_ones_own_carries_its_dilemma(tmp_path):
    (label,) = read_labels("agency", write(tmp_path / "a.jsonl", ANSWER))
    assert label.item == Answer("Who draws first?", "By turns.")
    assert (label.target, label.dilemma_id, label.part) == (3.0, "mine", "train")
    (label,) = read_labels("agreement", write(tmp_path / "e.jsonl", ENDING))
    assert label.item == RoundEnding("Who draws first?", "x", "y", "By turns?", "Yes, from Monday.")
    assert (label.target, label.part, label.source) == (1.0, "heldout", "written")


def test_a_shipped_dilemma_is_found_by_its_id(tmp_path):
    dilemma = load_dilemmas()[0]
    row = {key: value for key, value in ANSWER.items() if key != "dilemma"} | {"dilemma_id": dilemma["id"]}
    (label,) = read_labels("agency", write(tmp_path / "a.jsonl", row))
    assert label.item.dilemma == dilemma["dilemma"]


@pytest.mark.parametrize(
    ("change", "field", "rest"),
    [
        ({"score": 6}, "score", "is 6; give a number from 0 to 5"),
        ({"score": -1}, "score", "is -1"),
        ({"score": float("nan")}, "score", "is nan"),
        ({"score": True}, "score", "is True; expected a number"),
        ({"part": "test"}, "part", "choose among train, heldout"),
        ({"answer": " "}, "answer", "is empty"),
        ({"author": 3}, "author", "is 3; expected a text"),
        ({"dilemma": ""}, "dilemma_id", "'mine' is unknown; give its text in a field dilemma"),
    ],
)
def test_a_bad_answer_is_named_by_file_line_and_field(tmp_path, change, field, rest):
    # The blank line counts as a line: an editor shows the same number.
    path = write(tmp_path / "a.jsonl", ANSWER, "", ANSWER | {"id": "a2"} | change)
    with pytest.raises(DataError) as caught:
        read_labels("agency", path)
    assert str(caught.value).startswith(f"{path}, line 3, field {field}: ")
    assert rest in str(caught.value)


@pytest.mark.parametrize("change", [{"agreed": 1}, {"message_b": ""}, {"persona_a": 3}])
def test_a_bad_ending_is_named_by_file_line_and_field(tmp_path, change):
    path = write(tmp_path / "e.jsonl", ENDING, ENDING | {"id": "e2"} | change)
    with pytest.raises(DataError) as caught:
        read_labels("agreement", path)
    assert str(caught.value).startswith(f"{path}, line 2, field {next(iter(change))}: ")


def test_an_unknown_dilemma_is_named(tmp_path):
    row = {key: value for key, value in ANSWER.items() if key != "dilemma"}
    with pytest.raises(DataError, match="line 1, field dilemma_id: 'mine' is unknown"):
        read_labels("agency", write(tmp_path / "a.jsonl", row))


def test_what_judge_score_writes_is_read_as_it_is(tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"id": str(n), "dilemma": f"Case {n % 50}?", "answer": f"Plan {n}."} for n in range(100)]
    write(source, *rows)
    scores = [None if n % 10 == 0 else n % 6 for n in range(100)]
    judge = llm_agency_judge(scripted_responder([f"{s}" if s is not None else "no" for s in scores]), "expensive")
    score_file("agency", source, output, judge)
    labels = read_labels("agency", output)
    assert [label.target for label in labels] == [float(s) for s in scores if s is not None]
    assert count_unlabelled("agency", output) == 10
    parts = {label.item.dilemma: label.part for label in labels}
    assert {label.part for label in labels if label.item.dilemma == "Case 1?"} == {parts["Case 1?"]}
    # A quarter of 45 dilemmas whose draw is that of a fair coin with a quarter: 11.25, give or take three times 2.9.
    assert 3 <= sum(part == "heldout" for part in parts.values()) <= 20
    assert (labels[0].author, labels[0].source) == ("", "")
    assert len({label.dilemma_id for label in labels}) == len(parts) == 45  # 5 of 50 cases have null labels only


def test_rows_of_one_dilemma_stay_in_one_part(tmp_path):
    rows = [ANSWER, ANSWER | {"id": "a2", "part": "heldout"}]
    with pytest.raises(DataError, match="row 'a2', field part: its dilemma stands in both parts"):
        read_labels("agency", write(tmp_path / "a.jsonl", *rows))


def test_a_row_without_any_dilemma_is_named(tmp_path):
    row = {key: value for key, value in ANSWER.items() if not key.startswith("dilemma")}
    with pytest.raises(DataError, match="line 1, field dilemma: is missing"):
        read_labels("agency", write(tmp_path / "a.jsonl", row))
