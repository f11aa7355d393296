"""The report of a comparison of models: tables in three forms, figures, one page, hostile names and words."""

import json

import pytest

from comity.cli import main
from comity.errors import RunError
from comity.report.contest import choose_examples, write_contest_report
from comity.report.contest_figures import draw_concession, draw_players, draw_win_matrix
from comity.report.contest_tables import PlainTable, show_p, tabulate_entry, to_latex, to_markdown


def estimate(mean, low=None, high=None, deviation=None, unscored=0):
    return {"mean": mean, "low": low, "high": high, "n": 4, "n_unscored": unscored, "run_means": [],
            "run_deviation": deviation}  # fmt: skip


def player(model, opponent=None, **measures):
    return {
        "model": model,
        "opponent": opponent or model,
        "dialogues": 4,
        "measures": measures,
        "signs": {},
        "concession_by_round": [{"round": 1, "share": 0.1, "messages": 4}, {"round": 2, "share": 0.3, "messages": 4}],
    }


ENTRY = {
    "task": "conflict",
    "decoding": "sampled",
    "players": [
        player("base", agreement_rate=estimate(0.5, 0.25, 0.75, 0.1), score_mean=estimate(2.0, 1.5, 2.5)),
        player("multi", agreement_rate=estimate(1.0, 1.0, 1.0, unscored=1), score_mean=estimate(None, unscored=4)),
        player("base", "multi", score_mean=estimate(3.0)),
    ],
    "comparisons": [
        {"measure": "agreement_rate", "first": "base", "second": "multi", "before": 0.5, "after": 1.0,
         "difference": 0.5, "low": 0.25, "high": 0.75, "n": 4, "n_unscored": 1, "effect": 1.57, "test": "McNemar",
         "up": 2, "down": 0, "same": 2, "p_value": 0.0004, "p_adjusted": 0.0008, "scenarios_needed": 12},
    ],
    "win_rates": [
        {"first": "base", "second": "multi", "wins": 1, "losses": 2, "ties": 1, "inconsistent": 3, "unscored": 0,
         "rate": 0.375, "low": 0.125, "high": 0.625, "p_value": 0.5, "p_adjusted": 0.5},
    ],
    "strengths": [{"model": "multi", "share": 0.6, "low": 0.4, "high": 0.8},
                  {"model": "base", "share": 0.4, "low": 0.2, "high": 0.6}],
}  # fmt: skip


def make_row(model, scenario, text="Dig.", **changes):
    row = {
        "model": model, "opponent": model, "task": "conflict", "decoding": "sampled", "run": 0, "scenario": scenario,
        "dilemma": "The well is low.", "personas": ["Save it.", "Use it."], "ending": "agreed", "rounds": 1,
        "messages": [{"seat": seat, "text": text, "finish": "stop", "tokens": 2} for seat in (0, 1)],
        "checks": [{"round": 1, "agreed": True, "probability": None, "reason": ""}], "completion": "They dig.",
        "reward": 3.0, "score": 3.0, "heldout_agreed": None, "heldout_score": None,
    }  # fmt: skip
    return row | changes


@pytest.fixture
def folder(tmp_path):
    rows = [make_row(model, f"t{n}") for model in ("base", "multi") for n in range(4)]
    rows.append(make_row("base", "t0", "<script>alert(1)</script>", opponent="multi"))
    write(tmp_path, rows)
    return tmp_path


def write(folder, rows, entry=ENTRY):
    results = {"models": ["base", "multi"], "preference_judge": "held-out score", "entries": [entry]}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (folder / "settings.json").write_text('{"settings": {"seed": 1}}', encoding="utf-8")
    (folder / "dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def cells(name):
    (table,) = [table for table in tabulate_entry(ENTRY) if table.name == f"conflict-sampled-{name}"]
    return table


def test_measures_show_intervals_deviation_and_unscored():
    table = cells("measures")
    assert table.headings == ("Measure", "base", "multi", "base against multi")
    assert table.rows == (
        ("Agreement rate", "50.0 % [25.0 to 75.0 %] ± 10.0 %", "100.0 % [100.0 to 100.0 %] (1 u)", "–"),
        ("Collective Agency of the answer (0–5)", "2.00 [1.50 to 2.50]", "– (4 u)", "3.00"),
    )


def test_differences_and_win_rates_in_words():
    assert cells("differences").rows == (
        ("Agreement rate: base → multi", "50.0 %", "100.0 %", "+50.0 pp", "+25.0 to +75.0 pp", "+1.57", "< 0.001", "12",
         "4", "1"),
    )  # fmt: skip
    assert cells("wins").rows == (("base over multi", "37.5 %", "12.5 to 62.5 %", "1", "2", "1", "3", "0", "0.500"),)
    assert cells("strengths").rows[0] == ("multi", "60.0 %", "40.0 to 80.0 %")
    assert show_p(0.001) == "0.001"


def test_empty_tables_are_left_out():
    empty = {**ENTRY, "comparisons": [], "win_rates": [], "strengths": []}
    assert [table.name for table in tabulate_entry(empty)] == ["conflict-sampled-measures"]


def test_markdown_and_latex_escape_names():
    table = PlainTable("t", "A_b & 50 %", ("m", "a|b"), (("x_1 → y", "1 % ± 2"),), "Note.")
    assert to_markdown(table) == (
        "**A\\_b & 50 %**\n\n| m | a\\|b |\n| --- | ---: |\n| x\\_1 → y | 1 % ± 2 |\n\nNote.\n"
    )
    latex = to_latex(table)
    assert r"\caption{A\_b \& 50 \%}" in latex
    assert r"x\_1 $\to$ y & 1 \% $\pm$ 2 \\" in latex
    assert latex.startswith("\\begin{table}\n")
    assert latex.endswith("\\end{table}\n")


def test_the_page_tables_and_figures(folder):
    page = write_contest_report(folder).read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "37.5 %" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    names = ["all", *(f"conflict-sampled-{name}" for name in ("differences", "measures", "strengths", "wins"))]
    assert sorted(path.name for path in (folder / "tables").iterdir()) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("md", "tex")
    )
    assert (folder / "tables" / "all.md").read_text(encoding="utf-8").count("| --- |") == 4
    assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted(
        f"conflict-sampled-{kind}.{suffix}" for kind in ("players", "wins", "concession") for suffix in ("svg", "png")
    )


def test_the_report_command_knows_a_comparison(folder, capsys):
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").exists()
    assert "comparison of models" in (folder / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    (folder / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="damaged"):
        write_contest_report(folder)


def test_examples_show_all_players_of_a_scenario_drawn_by_lot(folder):
    rows = [make_row(model, f"t{n}", run=run) for model in ("base", "multi") for n in range(4) for run in range(2)]
    examples = choose_examples(rows, 2)
    assert len(examples) == 2
    assert [dialogue.heading for dialogue in examples[0].dialogues] == ["base", "multi"]
    assert {example.rule for example in choose_examples(rows[::-1], 2)} == {example.rule for example in examples}


def test_nothing_scored_draws_nothing():
    empty = {**ENTRY, "players": [player("a") | {"concession_by_round": []}], "win_rates": []}
    assert draw_players(empty) is None
    assert draw_win_matrix(empty) is None
    assert draw_concession(empty) is None


def test_the_matrix_mirrors_each_pair():
    texts = [text.get_text() for text in draw_win_matrix(ENTRY).axes[0].texts]
    # Row base over column multi, and its mirror image: 1 - 0.375, interval 1 - 0.625 to 1 - 0.125.
    assert texts == ["37.5 %", "12 to 62", "62.5 %", "38 to 88"]
