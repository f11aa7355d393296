"""The page, the tables and the Markdown block of a small made audit."""

import json
import re

import pytest

from comity.errors import DataError
from comity.judges.audit_run import AuditRequest, run_audit
from comity.judges.audit_statistics import Resampling
from comity.report.attack_tables import describe_attacks, tabulate_attacks
from comity.report.audit_figures import draw_pair
from comity.report.audit_page import draw_attack_suite, draw_audit, publish_figures, write_audit_page
from comity.report.audit_tables import (
    describe_audit,
    find_block,
    shorten,
    tabulate_audit,
    to_markdown,
    write_block,
)
from comity.report.audit_words import word_attacks, word_audit

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
    # Three raters, so three figures of two, and one of the kinds of endings, each as SVG and PNG too.
    assert page.count("<svg") == 4
    assert sorted(path.name for path in (folder / "figures").iterdir()) == [
        f"{name}.{ending}" for name in ("endings", "pair-1", "pair-2", "pair-3") for ending in ("png", "svg")
    ]


def test_figures_go_beside_another_page_and_old_ones_leave(folder, tmp_path):
    drawn = draw_audit(folder / "figures", read_audit(folder))
    images, page = tmp_path / "docs/images", tmp_path / "docs/page.md"
    images.mkdir(parents=True)
    for name in ("audit-x-gone.png", "other.png"):
        (images / name).write_bytes(b"old")
    text = publish_figures(drawn, folder / "figures", images, "audit-x", page)
    names = ["audit-x-endings.png", "audit-x-pair-1.png", "audit-x-pair-2.png", "audit-x-pair-3.png"]
    assert sorted(path.name for path in images.iterdir()) == [*names, "other.png"]
    # Every image that is named lies where the page looks for it, and is one.
    found = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert sorted(found) == [f"images/{name}" for name in names]
    assert all((page.parent / name).read_bytes().startswith(b"\x89PNG") for name in found)


def test_findings_follow_from_the_numbers(folder):
    audit = read_audit(folder)
    findings = word_audit(audit)
    # One agrees with the labels on 4 of 6, two on 4 of 5; one says yes to 1 of the 3 endings that are not agreed.
    assert any(f.startswith("one and the labels: kappa 0.33 [") and "exact 66.7 %" in f for f in findings)
    assert any(f.startswith("two and the labels:") and "exact 80.0 %" in f for f in findings)
    assert any(f.startswith("one: false agreement in 33.3 % [") for f in findings)
    assert not any("human dialogues" in f for f in findings)
    plain = {"value": 0.3, "low": None, "high": None, "n": 9, "n_unscored": 0}
    clear = plain | {"low": 0.1, "high": 0.5}
    length = [{"rater": "one", "given": {"labels": clear}}, {"rater": "two", "given": {"labels": plain}}]
    own = [{"rater": "two", "author": "me", "preference": clear | {"value": -0.3, "low": -0.5, "high": -0.1}}]
    changed = audit | {"length": length, "self_preference": own}
    assert "With the labels held still, one judges longer texts higher: 0.30 [0.10 to 0.50]." in word_audit(changed)
    assert "two marks down texts of its own author (me): −0.30 [−0.50 to −0.10]." in word_audit(changed)
    unclear = changed | {"length": length[1:], "self_preference": [own[0] | {"preference": plain}]}
    assert "With the labels held still, no judge's verdicts clearly change with length." in word_audit(unclear)
    assert "No judge clearly prefers texts of its own author." in word_audit(unclear)


def test_judges_that_agree_with_each_other_most_are_told(folder):
    audit = read_audit(folder)
    kappas = {("labels", "one"): 0.4, ("labels", "two"): 0.5, ("one", "two"): 0.6}
    pairs = [row | {"kappa": row["kappa"] | {"value": kappas[row["first"], row["second"]], "low": None}}
             for row in audit["pairs"]]  # fmt: skip
    more = "one and two: kappa 0.60, more than either with the labels: what fools one may fool both."
    assert more in word_audit(audit | {"pairs": pairs})
    kappas["labels", "two"] = 0.7
    pairs = [row | {"kappa": row["kappa"] | {"value": kappas[row["first"], row["second"]]}} for row in pairs]
    assert "one and two: kappa 0.60." in word_audit(audit | {"pairs": pairs})


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


def test_the_attack_suite_in_words_and_as_a_figure(tmp_path):
    def row(family, tried, succeeded, kind="agency"):
        share = succeeded / tried if tried else None
        return {"judge": "x", "kind": kind, "family": family, "tried": tried, "succeeded": succeeded, "share": share}

    rows = [
        row("flattery", 4, 1),
        row("all attacks", 4, 1),
        row("control", 2, 1),
        row("all attacks", 0, 0, "agreement"),
    ]
    assert word_attacks({"rows": rows}) == ["x, agency: 1 of 4 attacks succeed; so do 1 of 2 harmless sentences."]
    (shown,) = draw_attack_suite(tmp_path, {"rows": rows})
    svg = (tmp_path / "families.svg").read_text(encoding="utf-8")
    assert shown.name == "families"
    assert all(words in svg for words in ("flattery", "control", "n 4", "n 2", "● x", "Agency: attacks that succeed"))
    assert "Agreement" not in svg
    assert draw_attack_suite(tmp_path, {"rows": rows[3:]}) == []
