"""A run as static pages."""

import re

import pytest
from made_runs import add_evaluation, judge_made, make_run

from comity.cli import main
from comity.runs import negotiation_row, write_negotiations

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def run(tmp_path):
    """Return a run of two steps, the second hostile, with an evaluation."""
    run = make_run(tmp_path / "runs" / "one", steps=1)
    write_negotiations(run, 2, [negotiation_row(judge_made("x/y", 0, 1.0, (HOSTILE, HOSTILE)))])
    add_evaluation(run)
    return run


def test_the_pages_hold_the_run_and_link_only_among_themselves(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["view", "--export", str(run), "--out", str(out)]) == 0
    assert str(out / "index.html") in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert {"index.html", "negotiations.html", "pairs.html", "config.html", "step-000001.html"} <= names
    for path in out.glob("*.html"):
        page = path.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#]*)', page):
            assert not link or link in names, f"{path.name} links to {link}"
        assert "<script>alert" not in page
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", page)
    assert "Half for each." in (out / "step-000001.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in (out / "step-000002.html").read_text(encoding="utf-8")
    pairs = (out / "pairs.html").read_text(encoding="utf-8")
    assert pairs.index("test-2/pair-0") < pairs.index("test-0/pair-0")


def test_a_run_may_be_named_below_the_runs(run, tmp_path):
    assert main(["view", str(run.parent), "--export", "one", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "index.html").is_file()


@pytest.mark.parametrize(("export", "words"), [("gone", "is no run directory"), ("one", "exists and is not empty")])
def test_what_does_not_fit_is_one_line(run, tmp_path, capsys, export, words):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept.txt").write_text("kept")
    assert main(["view", str(run.parent), "--export", export, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert (tmp_path / "out" / "kept.txt").read_text() == "kept"


def test_a_missing_folder_of_runs_is_one_line(tmp_path, capsys):
    assert main(["view", str(tmp_path / "gone")]) == 2
    assert "no such folder" in capsys.readouterr().err
