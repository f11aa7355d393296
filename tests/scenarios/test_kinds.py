"""The five kinds of files: detected by their fields, checked row by row, fast."""

import json
import time

import pytest

from comity.errors import DataError
from comity.scenarios.kinds import KINDS, check_scenario_row, detect_kind, find_kind, read_kind, scan_kind
from comity.scenarios.rows import write_rows

GOOD = {
    "dilemmas": {"id": "d", "tier": "everyday", "domain": "home", "dilemma": "Who cooks?", "split": "dev"},
    "persona-pairs": {"id": "p", "tension": "a / b", "persona_a": "You save.", "persona_b": "You spend."},
    "conflict-tasks": {
        "id": "t", "tier": "everyday", "domain": "home", "dilemma": "Who cooks?", "persona_a": "You eat.",
        "persona_b": "You fast.",
    },
    "open-ended": {"id": "o", "question": "How do we share a kitchen?"},
    "transfer": {
        "id": "c", "title": "The kitchen", "situation": "Four flats share one kitchen.",
        "stakeholders": [{"name": "Flat 1", "interests": "Quiet."}, {"name": "Flat 2", "interests": "Music."}],
    },
}  # fmt: skip


def test_shipped_files_have_the_promised_rows_and_no_other_fields():
    counts = {kind.name: len(read_kind("shipped", kind.name)) for kind in KINDS}
    assert counts == {
        "dilemmas": 1100, "persona-pairs": 25, "conflict-tasks": 100, "open-ended": 100, "transfer": 60,
    }  # fmt: skip
    for kind in KINDS:
        for row in read_kind("shipped", kind.name):
            check_scenario_row(kind, row, "here", extra=False)


@pytest.mark.parametrize("name", GOOD)
def test_a_file_is_known_by_its_fields(tmp_path, name):
    path = tmp_path / "mine.jsonl"
    write_rows(path, [GOOD[name], GOOD[name] | {"id": "2", "mine": 3}])
    assert detect_kind(path) == find_kind(name)
    assert [row["id"] for row in read_kind(str(path), name)] == [GOOD[name]["id"], "2"]
    assert detect_kind(find_kind(name).shipped) == find_kind(name)


@pytest.mark.parametrize("name", GOOD)
def test_a_first_row_that_lacks_a_field_does_not_hide_the_kind(tmp_path, name):
    path = tmp_path / "mine.jsonl"
    for field in GOOD[name]:
        if len(GOOD[name]) == 2 and field != "id":
            continue  # a question is known by its one field alone
        write_rows(path, [{key: value for key, value in GOOD[name].items() if key != field}])
        assert detect_kind(path) == find_kind(name), field
        with pytest.raises(DataError, match=f"mine.jsonl, line 1, field {field}: is missing"):
            read_kind(str(path), name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "x", "prompt": "p"}', "has fields id, prompt, which fit no kind of file; give --kind, one of dilemm"),
        ('{"id": "x"}', "has fields id, which fit no kind"),
        ("[1]", "has no JSON object, which fit no kind"),
        ("", "has no rows"),
    ],
)
def test_a_file_of_no_kind_is_named(tmp_path, text, message):
    path = tmp_path / "mine.jsonl"
    path.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        detect_kind(path)


def test_an_unknown_kind_is_named():
    with pytest.raises(DataError, match="kind 'poems' is unknown: choose among dilemmas, persona-pairs"):
        find_kind("poems")


def party(**changes):
    return {"name": "Flat 3", "interests": "Sleep."} | changes


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("conflict-tasks", {"tier": "none"}, "field tier: is 'none'; choose among professional, inter"),
        ("conflict-tasks", {"persona_b": "  you EAT "}, "field persona_b: equals persona_a; write the opposing goal"),
        ("persona-pairs", {"persona_b": "You save!"}, "field persona_b: equals persona_a"),
        ("open-ended", {"question": " "}, "field question: is empty; write a text"),
        ("transfer", {"stakeholders": "two"}, "field stakeholders: is no list of objects; give a list of objects with"),
        ("transfer", {"stakeholders": ["x", "y"]}, "field stakeholders: is no list of objects"),
        ("transfer", {"stakeholders": [party()]}, "field stakeholders: has 1; give 2 or more"),
        ("transfer", {"stakeholders": [party(), {"name": "x"}]}, r"field stakeholders\[1\].interests: is missing"),
        ("transfer", {"stakeholders": [party(name=""), party()]}, r"field stakeholders\[0\].name: is empty"),
        ("transfer", {"stakeholders": [party(interests=3), party()]}, r"stakeholders\[0\].interests: is 3; expected a"),
        ("transfer", {"stakeholders": [party(), party(name="flat 3.")]}, r"stakeholders\[1\].name: 'flat 3.' stand"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_by_file_line_field_and_mend(tmp_path, name, changes, message):
    path = tmp_path / "mine.jsonl"
    write_rows(path, [GOOD[name] | {"id": "first"}, GOOD[name] | changes])
    with pytest.raises(DataError, match=f"mine.jsonl, line 2, {message}" if message.startswith("field") else message):
        read_kind(str(path), name)


def test_a_scan_goes_on_after_a_bad_row(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [GOOD["open-ended"], {"id": "2"}, GOOD["open-ended"], {"id": "3", "question": "Why?"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{torn", encoding="utf-8")
    found = [str(item) if isinstance(item, DataError) else item["id"] for item in scan_kind(path, KINDS[3])]
    assert found[0::3] == ["o", "3"]
    assert "line 2, field question: is missing" in found[1]
    assert "line 3, field id: 'o' stands on line 1 too; rename one" in found[2]
    assert "line 5: is not JSON" in found[4]


@pytest.mark.parametrize("line", ["[" * 100_000, '{"id": ' + "9" * 5000 + "}"])
def test_monstrous_json_is_an_error_of_the_row(tmp_path, line):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(GOOD["open-ended"]) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"mine.jsonl, line 2: is not JSON"):
        read_kind(str(path), "open-ended")


@pytest.mark.parametrize("name", GOOD)
def test_ten_thousand_rows_load_in_two_seconds(tmp_path, name):
    path = tmp_path / "mine.jsonl"
    write_rows(path, [GOOD[name] | {"id": str(number)} for number in range(10_000)])
    start = time.perf_counter()
    assert len(read_kind(str(path), detect_kind(path).name)) == 10_000
    assert time.perf_counter() - start < 2
