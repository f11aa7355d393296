"""The report of a small made run."""

import json
import re

import pytest

from comity.errors import RunError
from comity.report.dialogues import choose_pairs
from comity.report.report import write_report
from comity.report.tables import show, tabulate_changes, tabulate_settings, word_parting

SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'


def make_row(scenario, sample=0, reward=3.0, text="I agree.", ending="agreed"):
    return {
        "scenario": scenario, "dilemma": f"Dilemma {text}", "tier": "everyday", "domain": "", "sample": sample,
        "personas": [f"Goal {text}", "Goal B"], "ending": ending, "rounds": 1,
        "messages": [
            {"seat": 0, "text": text, "finish": "stop", "tokens": 3},
            {"seat": 1, "text": text, "finish": "length", "tokens": 3},
        ],
        "checks": [{"round": 1, "agreed": ending == "agreed", "probability": 0.9, "reason": f"Reason {text}"}],
        "completion": f"Answer {text}", "reward": reward, "score": reward, "uncertainty": None, "reasons": [],
        "heldout_agreed": True, "heldout_score": 2.0, "advantage": None,
    }  # fmt: skip


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run(tmp_path):
    """Return a run directory of three steps with hostile dialogues and no evaluation."""
    folder = tmp_path / "made-run"
    metrics = [{"step": step, "agreement/rate": 0.5, "zero/used": 0.5, "time/step_seconds": 60.0} for step in (1, 2, 3)]
    write_lines(folder / "metrics.jsonl", metrics)
    write_lines(folder / "negotiations/step-000001.jsonl", [make_row("t1", text=SCRIPT)])
    write_lines(folder / "negotiations/step-000003.jsonl", [make_row("t2", text=IMAGE)])
    settings = {"seed": 7, "model": {"name": SCRIPT, "adapter": "none"}}
    (folder / "config.json").write_text(json.dumps({"settings": settings, "commit": None, "versions": {}}))
    return folder


def add_evaluation(run):
    write_lines(run / "evaluation/before.jsonl", [make_row(f"s{i}", reward=1.0, text=IMAGE) for i in range(5)])
    write_lines(run / "evaluation/after.jsonl", [make_row(f"s{i}", reward=1.5 + i / 2, text=SCRIPT) for i in range(5)])


def test_hostile_text_appears_only_escaped(run):
    add_evaluation(run)
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in page.lower()
    assert "<img" not in page.lower()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&#34;&gt;&lt;img src=x onerror=alert(2)&gt;" in page


def test_page_references_nothing_outside(run):
    add_evaluation(run)
    page = write_report(run).read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", page) == []
    assert re.findall(r"url\((?!#)|@import", page) == []
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_tables_are_written_as_markdown_and_latex(run):
    add_evaluation(run)
    rows = [make_row("t3", sample, reward, ending="agreed" if reward else "no_agreement") | {"advantage": advantage}
            for sample, (reward, advantage) in enumerate([(0.0, -1.0), (2.0, 1.0)])]  # fmt: skip
    write_lines(run / "negotiations/step-000002.jsonl", rows)
    page = write_report(run).read_text(encoding="utf-8")
    assert sorted(path.name for path in (run / "tables").iterdir()) == sorted(
        f"{name}.{suffix}" for name in ("all", "before-after", "zero-rewards") for suffix in ("md", "tex")
    )
    # One of two rollouts failed in a mixed group; the paper's figures stand beside it.
    markdown = (run / "tables" / "zero-rewards.md").read_text(encoding="utf-8")
    assert "| this run | 2 | 0.0 % | 50.0 % | 50.0 % | 0.0 % | −1.00 |" in markdown
    assert "| the paper | 30400 | 25.0 % |" in markdown
    assert "this run & 2 & 0.0 \\% & 50.0 \\% &" in (run / "tables" / "zero-rewards.tex").read_text(encoding="utf-8")
    assert "| Agreement rate | 100.0 % | 100.0 % |" in (run / "tables" / "all.md").read_text(encoding="utf-8")
    assert '<th scope="row">this run</th>' in page


def test_page_shows_the_comparison(run):
    add_evaluation(run)
    page = write_report(run).read_text(encoding="utf-8")
    # Rewards 1.5, 2, 2.5, 3, 3.5 against 1: the mean 2.5 is 1.5 above 1.
    assert "<td>1.00</td><td>2.50</td><td><b>+1.50</b></td>" in page
    assert (run / "figures/before-after.svg").exists()
    assert (run / "figures/agreement.png").exists()
    assert "no evaluation" not in page


def test_works_without_evaluation_and_says_so(run):
    page = write_report(run).read_text(encoding="utf-8")
    assert "This run has no evaluation" in page
    assert "This run has no summary" in page
    assert "drawn by lot among the 1 dialogues of step 3" in page
    assert not (run / "figures/before-after.svg").exists()


def test_works_with_an_evaluation_alone(run, tmp_path):
    add_evaluation(tmp_path / "alone")
    page = write_report(tmp_path / "alone").read_text(encoding="utf-8")
    assert "This run has no training steps yet" in page
    assert "+1.50" in page


def test_the_same_run_gives_the_same_page(run):
    add_evaluation(run)
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_a_stored_comparison_is_shown_as_it_is(run):
    result = {"before": 1.0, "after": 1.25, "difference": 0.25, "low": -0.5, "high": 1.0, "n": 4, "n_unscored": 3}
    (run / "evaluation").mkdir()
    (run / "evaluation/results.json").write_text(json.dumps({"comparison": {"reward_mean": result}}))
    page = write_report(run).read_text(encoding="utf-8")
    assert "<b>+0.25</b></td><td>−0.50 to +1.00</td><td>4</td><td>3</td>" in page


def test_foreign_and_damaged_folders_are_refused(tmp_path, run):
    with pytest.raises(RunError, match="is no run directory"):
        write_report(tmp_path)
    (run / "evaluation").mkdir()
    (run / "evaluation/before.jsonl").write_text('{"torn')
    with pytest.raises(RunError, match=r"before\.jsonl: is damaged"):
        write_report(run)


def test_examples_are_the_extremes_the_middle_and_a_lot():
    before = [make_row(f"s{i}", reward=2.0) for i in range(6)]
    after = [make_row(f"s{i}", reward=reward) for i, reward in enumerate((0.0, 1.0, 2.5, 3.0, 5.0))]
    examples = choose_pairs(before, [*after, make_row("s5", reward=None)])
    titles = [example.title for example in examples]
    assert titles == ["Largest gain in reward", "Median change", "Largest loss in reward", "Drawn by lot"]
    scenarios = [example.dialogues[0].row["scenario"] for example in examples]
    # Changes -2, -1, 0.5, 1, 3: gain s4, median s2, loss s0; the lot falls on one of the others.
    assert scenarios[:3] == ["s4", "s2", "s0"]
    assert scenarios[3] in ("s1", "s3", "s5")


def test_labels_stay_honest_when_nothing_was_lost():
    examples = choose_pairs([make_row("a", reward=1.0), make_row("b", reward=1.0)], [make_row("a"), make_row("b")])
    assert "Largest loss in reward" not in [example.title for example in examples]


def test_fewer_rounds_are_better():
    result = {"before": 3.0, "after": 2.0, "difference": -1.0, "low": -1.5, "high": -0.5, "n": 9, "n_unscored": 0}
    open_end = {**result, "high": 0.1}
    changes = tabulate_changes({"rounds_mean": result, "reward_mean": result, "agreement_rate": open_end})
    assert {change.label: change.verdict for change in changes} == {
        "Rounds played": "better", "Mean reward (0–5)": "worse", "Agreement rate": "unclear",
    }  # fmt: skip


def test_words_of_numbers():
    assert show(0.1234, "share") == "12.3 %"
    assert show(-0.5, signed=True) == "−0.50"
    assert show(None) == "–"
    assert tabulate_settings({"a": {"b": [1, 2]}, "c": None}) == [("a.b", "1, 2"), ("c", "–")]


def test_judges_part_since_the_last_time_that_they_began_to():
    assert word_parting([10.0, 11.0, 12.0, 13.0], [1.0, 0.0, 1.0, 1.0]) == "part since step 12"
    assert word_parting([10.0, 11.0], [1.0, 1.0]) == "part since step 10"
    assert word_parting([], []) == ""


@pytest.mark.parametrize(
    ("parted", "words"),
    [
        ([0.0, 0.0], "do not part"),
        ([0.0, 1.0], "part since step 3"),
        ([1.0, 0.0], "parted in step 2, not at the end"),
    ],
)
def test_page_says_whether_the_judges_part(run, parted, words):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    write_lines(
        run / "metrics.jsonl", [rows[0], *(row | {"judges/parted": p} for row, p in zip(rows[1:], parted, strict=True))]
    )
    page = write_report(run).read_text(encoding="utf-8")
    assert f"<dt>judges</dt><dd>{words}</dd>" in page
    assert f"the held-out judge {words}." in page


def test_page_says_nothing_of_judges_that_were_not_watched(run):
    page = write_report(run).read_text(encoding="utf-8")
    assert "<dt>judges</dt>" not in page
    assert "the gap between them" not in page
