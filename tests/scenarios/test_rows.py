"""A bad row is named by file, line, field and mend."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import DataError
from comity.scenarios.load import load_dilemmas, load_persona_pairs
from comity.scenarios.rows import check_row, read_rows, write_rows

GOOD = {"id": "x-1", "tier": "everyday", "domain": "home", "dilemma": "Who cooks?", "split": "dev"}


def line(**changes):
    return json.dumps({**GOOD, "id": "x-2", **changes})


def without(field):
    return json.dumps({key: value for key, value in {**GOOD, "id": "x-2"}.items() if key != field})


BAD = [
    ("{", None, "is not JSON (Expecting property name enclosed in double quotes at column 2); mend it"),
    ("[1]", None, "is list; write one JSON object a line"),
    ('"text"', None, "is str; write one JSON object a line"),
    (line(tier="huge"), "tier", "is 'huge'; choose among professional, interpersonal, everyday"),
    (line(tier=["everyday"]), "tier", "is ['everyday']; choose among"),
    (line(split="validation"), "split", "is 'validation'; choose among train, dev, test"),
    (line(split=None), "split", "is None; choose among"),
    (line(dilemma=""), "dilemma", "is empty; write a text"),
    (line(dilemma=" \n"), "dilemma", "is empty; write a text"),
    (line(dilemma=3), "dilemma", "is 3; expected a text"),
    (line(dilemma=None), "dilemma", "is None; expected a text"),
    (line(id=["x"]), "id", "is ['x']; expected a text"),
    (line(id="x-1"), "id", "'x-1' stands on line 1 too; rename one"),
    (without("domain"), "domain", "is missing; the fields are id, tier, domain, dilemma, split"),
    (without("id"), "id", "is missing; the fields are"),
]


@pytest.mark.parametrize(("text", "field", "mend"), BAD)
def test_a_bad_dilemma_is_named(tmp_path, text, field, mend):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + text + "\n", encoding="utf-8")  # the bad row stands on line 3
    with pytest.raises(DataError) as caught:
        load_dilemmas(str(path))
    place = f"{path}, line 3" + (f", field {field}" if field else "")
    assert str(caught.value).startswith(f"{place}: ")
    assert mend in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_persona_pair_is_named(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"id": "p", "tension": "a / b", "persona_a": "x"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs.jsonl, line 1, field persona_b: is missing"):
        load_persona_pairs(str(path))


def test_files_that_are_no_data_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none.jsonl: cannot be read \(No such file or directory\); give a JSONL file"):
        load_dilemmas(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        load_dilemmas(str(tmp_path))
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(DataError, match=r"empty.jsonl: has no rows; write one JSON object a line"):
        load_dilemmas(str(tmp_path / "empty.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "caf\xe9"}')
    with pytest.raises(DataError, match=r"latin.jsonl: is not UTF-8 text .*; save it as UTF-8"):
        load_dilemmas(str(tmp_path / "latin.jsonl"))


def test_an_empty_split_is_named(tmp_path):
    write_rows(tmp_path / "mine.jsonl", [GOOD])
    assert load_dilemmas(str(tmp_path / "mine.jsonl"), "dev") == [GOOD]
    with pytest.raises(DataError, match=r"mine.jsonl: no row has split 'train'; mark some rows for it"):
        load_dilemmas(str(tmp_path / "mine.jsonl"), "train")


def test_kinds_of_fields():
    fields = {"id": str, "n": int, "x": float, "flag": bool, "items": list, "note?": str}
    good = {"id": "a", "n": 1, "x": 0.5, "flag": False, "items": [], "note": None}
    check_row(good, fields, "here")
    check_row({**good, "x": 1}, fields, "here")  # JSON does not tell 1 from 1.0
    for name, value, words in [
        ("n", True, "a whole number"), ("n", 1.0, "a whole number"), ("x", True, "a number"), ("x", "1", "a number"),
        ("flag", 1, "true or false"), ("items", "ab", "a list"), ("note", 3, "a text"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=f"here, field {name}: is .*; expected {words}"):
            check_row({**good, name: value}, fields, "here")


def test_fields_that_are_not_listed_can_be_refused():
    check_row({"id": "a", "more": 1}, {"id": str}, "here")
    with pytest.raises(DataError, match="here, field more: is unknown; the fields are id"):
        check_row({"id": "a", "more": 1}, {"id": str}, "here", extra=False)


@given(st.lists(st.text(st.characters(exclude_categories=()), min_size=1).filter(str.strip), min_size=1))
def test_any_text_comes_back_as_it_was_written(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    rows = [{"text": value} for value in [*values, "U+2028 \u2028 and \x85", "half a pair \ud800"]]
    write_rows(path, rows)
    assert read_rows(path, {"text": str}, unique=None) == rows


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    write_rows(path, [{"id": "old"}])
    with pytest.raises(TypeError):
        write_rows(path, [{"id": "new"}, {"id": object()}])
    assert read_rows(path, {"id": str}) == [{"id": "old"}]
    assert [p.name for p in path.parent.iterdir()] == ["rows.jsonl"]
