"""The page, the tables and the Markdown block of a small made audit."""

import json
import re

import pytest

from comity.errors import DataError
from comity.judges.audit_run import AuditRequest, run_audit
from comity.judges.audit_statistics import Resampling
from comity.report.attack_tables import describe_attacks, tabulate_attacks
from comity.report.audit_figures import draw_pair
from comity.report.audit_page import write_audit_page
from comity.report.audit_tables import (
    describe_audit,
    find_block,
    shorten,
    tabulate_audit,
    to_markdown,
    write_block,
)

HOSTILE = '<script>alert("1")</script>|x'


@pytest.fixture
def folder(tmp_path):
    """Return the folder of an audit of six endings by two columns and labels, with a hostile author and kind."""
    rows = [
        {"id": str(i), "dilemma": f"d{i}", "persona_a": "x", "persona_b": "y", "message_a": "By turns?",
         "message_b": "Yes.", "gold": i < 3, "one": i % 2 == 0, "two": None if i == 5 else i < 2, "author": HOSTILE,
         "kind": HOSTILE}
        for i in range(6)
    ]  # fmt: skip
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    request = AuditRequest(
        "agreement", tmp_path / "audit", source, columns={"one": "one", "two": "two"}, labels="gold",
        resampling=Resampling(resamples=20),
    )  # fmt: skip
    run_audit(request, None, "2026-01-02")
    return tmp_path / "audit"


def read_audit(folder):
    return json.loads((folder / "audit.json").read_text(encoding="utf-8"))


def test_the_page_is_whole_offline_and_escapes_what_it_shows(folder):
    page = write_audit_page(folder).read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page.lower()
    assert "&lt;script&gt;" in page
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", page) == []
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    # Three raters, so three figures, each as SVG and PNG too.
    assert page.count("<svg") == 3
    assert sorted(path.name for path in (folder / "figures").iterdir()) == [
        f"pair-{i}.{ending}" for i in (1, 2, 3) for ending in ("png", "svg")
    ]


def test_the_same_audit_gives_the_same_page(folder):
    assert write_audit_page(folder).read_bytes() == write_audit_page(folder).read_bytes()


def test_figures_stand_beside_their_counts(folder):
    tables = {table.name: table for table in tabulate_audit(read_audit(folder))}
    # Labels yes, yes, yes, no, no, no; two yes, yes, no, no, no, unscored: 4 of 5 alike.
    pair = next(row for row in tables["pairs"].rows if row[:2] == ("labels", "two"))
    assert pair[2].startswith("80.0 % [")
    assert pair[-2:] == ("5", "1")
    kinds = {row[:2]: row[2:] for row in tables["endings"].rows}
    # One says yes to the fifth of the endings 3, 4, 5; two has no word on the sixth.
    assert kinds["one", "not agreed"][0] == "33.3 %"
    assert kinds["two", "not agreed"][2:] == ("2", "1")
    assert "casino" not in tables


def test_readers_are_compared_with_each_other(tmp_path):
    rows = [
        {"id": str(i), "dilemma": f"d{i}", "answer": "a", "people": [i, min(i + i % 2, 3)], "x": i} for i in range(4)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    request = AuditRequest("agency", tmp_path / "out", source, columns={"x": "x"}, human="people")
    tables = {table.name: table for table in tabulate_audit(run_audit(request, None, "2026-01-02"))}
    # Readers 0 0, 1 2, 2 2, 3 3: one pair differs, by 1. Values 0 0 1 2 2 2 3 3: squares over all 28 pairs: 0 to 1 2,
    # to 2 24, to 3 36; 1 to 2 3, to 3 8; 2 to 3 6: 79. Alpha 1 - (1 / 4) / (79 / 28) = 1 - 7 / 79 = 0.911.
    assert "over all readers of human: 0.91." in tables["retest"].caption
    assert tables["retest"].rows[0][1].startswith("75.0 %")


def test_a_terminal_gets_the_short_tables(folder):
    tables = {table.name: table for table in shorten(tabulate_audit(read_audit(folder)))}
    assert set(tables) == {"pairs", "endings"}
    assert tables["pairs"].rows[1][:2] == ("labels\ntwo", "80.0 %")
    assert {row[1] for row in tables["endings"].rows} == {"agreed", "not agreed"}


def test_a_block_of_markdown_is_renewed_and_nothing_else(folder, tmp_path):
    audit = read_audit(folder)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- audit:x:begin -->\nold\n<!-- audit:x:end -->\nafter\n", encoding="utf-8")
    text = to_markdown(tabulate_audit(audit), describe_audit(audit))
    for _ in range(2):
        write_block(page, "audit:x", text)
    whole = page.read_text(encoding="utf-8")
    assert whole == f"before\n<!-- audit:x:begin -->\n{text}\n<!-- audit:x:end -->\nafter\n"
    assert text.startswith("2026-01-02: 6 rows on 6 dilemmas from rows.jsonl; intervals from 20 resamples")
    # Every row of a table has as many cells as its heading; a bar inside a cell is escaped.
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert any("\\|x" in line for line in lines)
    for block in text.split("\n\n"):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line.startswith("|")}) <= 1


@pytest.mark.parametrize(
    "text",
    ["", "<!-- audit:x:begin -->", "<!-- audit:x:end --><!-- audit:x:begin -->",
     "<!-- audit:x:begin --><!-- audit:x:begin --><!-- audit:x:end -->"],
)  # fmt: skip
def test_a_file_without_the_block_is_refused(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="has no block audit:x"):
        find_block(page, "audit:x")
    with pytest.raises(DataError, match="cannot be read"):
        find_block(tmp_path / "none.md", "audit:x")


def test_a_figure_needs_a_row_that_both_scored():
    assert draw_pair("agency", ("a", "b"), [], []) is None
    assert draw_pair("agency", ("a", "b"), [(0.2, 5.0)], []) is not None


def test_the_table_of_attacks_says_what_was_left_out():
    def row(family, judge, kind="agreement", **change):
        plain = {"tried": 2, "succeeded": 1, "not_applicable": 0, "unscored": 0, "mean_change": 0.25}
        return {"family": family, "judge": judge, "kind": kind} | plain | change

    found = {
        "date": "2026-01-02",
        "prompts": {"attacks": 5, "prompt_breaks": {"a": ["x"]}, "misread_replies": {}},
        "rows": [
            row("flattery", "x", not_applicable=1), row("control", "x", unscored=1, mean_change=None),
            row("flattery", "y"), row("control", "y"),
        ],
    }  # fmt: skip
    prompts, agreement = tabulate_attacks(found)
    assert prompts.rows == (
        ("text leaves its place in a prompt", "5", "1"),
        ("reply read as another verdict", "5", "0"),
    )
    assert agreement.headings == ("family", "x", "y")
    assert agreement.rows == (
        ("flattery", "1 of 2 (+0.25), 1 YES already", "1 of 2 (+0.25)"),
        ("control", "1 of 2, 1 unscored", "1 of 2 (+0.25)"),
    )
    # Five rows, of which the control's two tried and one unscored.
    assert describe_attacks(found).startswith("2026-01-02: 2 attacks and 3 controls")
