"""Rows of a file come back with verdicts, everything else kept."""

import json

import pytest

from comity.engines.scripted import scripted_judge, scripted_responder
from comity.errors import DataError
from comity.judges.llm import llm_agency_judge
from comity.judges.score import score_file

ENDING = {"dilemma": "d", "persona_a": "x", "persona_b": "y", "message_a": "By turns?", "message_b": "Yes."}


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_gain_a_score_and_keep_their_fields(tmp_path):
    rows = [
        {"id": "1", "dilemma": "d", "answer": "é", "mine": [1, {"x": None}], "score": 9, "reason": "old"},
        {"id": "2", "dilemma": "d", "answer": None},
        {"id": "3", "dilemma": "d", "answer": "c", "reason": "mine"},
    ]
    source, output = write(tmp_path / "in.jsonl", *rows), tmp_path / "new" / "out.jsonl"
    judge = llm_agency_judge(scripted_responder(["4\nfair", "nonsense", "0"]), "scripted")
    scored = score_file("agency", source, output, judge)
    assert scored == [
        rows[0] | {"score": 4.0, "reason": "fair"},
        rows[1] | {"score": None, "reason": "no verdict in the reply"},
        rows[2] | {"score": 0.0},
    ]
    assert read(output) == scored
    assert read(source) == rows


def test_endings_gain_agreed(tmp_path):
    rows = [ENDING | {"id": name, "mine": name} for name in "abc"]
    source = write(tmp_path / "in.jsonl", *rows)
    scored = score_file("agreement", source, source, scripted_judge([True, None, False]))  # over the source itself
    assert [row["agreed"] for row in scored] == [True, None, False]
    assert read(source) == [row | {"agreed": word} for row, word in zip(rows, [True, None, False], strict=True)]


def test_a_message_that_never_came_counts_as_empty(tmp_path):
    source = write(tmp_path / "in.jsonl", ENDING | {"id": "a", "message_b": None})
    judge = scripted_judge(lambda ending: ending.message_b == "")
    assert score_file("agreement", source, tmp_path / "out.jsonl", judge)[0]["agreed"] is True


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "2", "dilemma": "d"}, "line 2, field answer: is missing"),
        ({"id": "2", "dilemma": "", "answer": "a"}, "line 2, field dilemma: is empty"),
        ({"id": "1", "dilemma": "d", "answer": "a"}, "line 2, field id: '1' stands on line 1 too"),
        ({"id": 2, "dilemma": "d", "answer": "a"}, "line 2, field id: is 2; expected a text"),
        ("{", "line 2: is not JSON"),
        ("[]", "line 2: is list"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path, row, message):
    source = write(tmp_path / "in.jsonl", {"id": "1", "dilemma": "d", "answer": "a"}, row)
    output = tmp_path / "out.jsonl"
    with pytest.raises(DataError) as caught:
        score_file("agency", source, output, llm_agency_judge(scripted_responder(["1", "1"]), "scripted"))
    assert str(caught.value).startswith(f"{source}, {message}")
    assert not output.exists()
