"""Write a run's report: one self-contained page, its figures and its tables, from the run directory alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from comity.errors import RunError
from comity.evaluation.statistics import compare
from comity.judges.signs import summarize_signs
from comity.report.charts import CHARTS, averaging_window
from comity.report.contest_tables import PlainTable, write_tables
from comity.report.dialogues import choose_pairs, choose_training, read_dialogues
from comity.report.figures import draw_chart, draw_forest, embed_svg, read_series, save_figure
from comity.report.tables import Change, Sign, show, tabulate_changes, tabulate_settings, tabulate_signs, word_parting
from comity.report.templates import get_template
from comity.report.zero_rewards import (
    HEADINGS,
    NOTE,
    PAPER,
    TITLE,
    read_steps,
    summarize_zero_rewards,
    tell_zero_rewards,
)
from comity.runs import read_json, read_metrics

BOOTSTRAP_SEED = 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The evaluation of a run: the comparison (see `compare`), its table and the signs of gaming."""

    before: Sequence[Mapping[str, Any]]
    after: Sequence[Mapping[str, Any]]
    comparison: Mapping[str, Mapping[str, float | int | None]]
    changes: Sequence[Change]
    signs: Sequence[Sign]
    scenarios: int


@dataclass(frozen=True, slots=True)
class ShownFigure:
    """A figure in the page: its section, its drawing and the caption below."""

    section: str
    svg: Markup
    caption: str


def write_report(run: Path) -> Path:
    """Write RUN/report.html, RUN/figures/ and RUN/tables/ (Markdown and LaTeX), return the page's path.

    Evaluation, summary, settings and metrics may be absent: the page then says so. Raise RunError when the folder
    holds none of them or one is damaged. No model is loaded.
    """
    names = ("config.json", "metrics.jsonl", "summary.json", "evaluation")
    if not any((run / name).exists() for name in names):
        raise RunError(f"{run}: is no run directory (it has none of {', '.join(names)}); give one written by comity")
    metrics = sorted(read_metrics(run), key=lambda row: row["step"])
    evaluation = _read_evaluation(run / "evaluation")
    config = read_json(run / "config.json") if (run / "config.json").exists() else {}
    summary = read_json(run / "summary.json") if (run / "summary.json").exists() else {}
    zero_rewards = tabulate_zero_rewards(run)
    tables = [tabulate_result(evaluation.changes, evaluation.signs)] if evaluation else []
    write_tables(run / "tables", [*tables, *([zero_rewards] if zero_rewards else [])])
    page = get_template("report.html.j2").render(
        name=run.resolve().name,
        facts=_list_facts(metrics, config.get("settings", {})),
        figures=_draw_figures(run / "figures", metrics, evaluation),
        parting=word_parting(*read_series(metrics, "judges/parted")),
        window=averaging_window(len(metrics)),
        steps=len(metrics),
        zero_rewards=zero_rewards,
        evaluation=evaluation,
        held_out=choose_pairs(evaluation.before, evaluation.after) if evaluation else [],
        training=choose_training(run),
        summary=tabulate_settings(summary),
        settings=tabulate_settings(config.get("settings", {})),
        origin=tabulate_settings({key: value for key, value in config.items() if key != "settings"}),
    )
    path = run / "report.html"
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(page, encoding="utf-8")
    scratch.replace(path)
    return path


def tabulate_zero_rewards(run: Path) -> PlainTable | None:
    """Return where a run's rewards of 0 come from, beside the paper's; None without a scored rollout."""
    found = summarize_zero_rewards(read_steps(run))
    if found is None:
        return None
    return PlainTable("zero-rewards", TITLE, HEADINGS, (PAPER, tell_zero_rewards("this run", found)), NOTE)


def tabulate_result(changes: Sequence[Change], signs: Sequence[Sign]) -> PlainTable:
    """Return measures and signs of gaming before and after in one table."""
    rows = [(c.label, c.before, c.after, c.difference, c.interval, str(c.n), str(c.n_unscored)) for c in changes]
    rows += [(sign.label, sign.before, sign.after, "–", "–", "–", "–") for sign in signs]
    headings = ("Measure", "before", "after", "difference", "95 % interval", "pairs", "unscored")
    note = "Held-out scenarios, paired; intervals resample whole scenarios. Signs of gaming have no interval."
    return PlainTable("before-after", "Before and after training", headings, tuple(rows), note)


def _read_evaluation(folder: Path) -> Evaluation | None:
    before, after = read_dialogues(folder / "before.jsonl"), read_dialogues(folder / "after.jsonl")
    results = read_json(folder / "results.json") if (folder / "results.json").exists() else {}
    comparison = results.get("comparison")
    if comparison is None and before and after:
        comparison = compare(before, after, BOOTSTRAP_SEED)
    if comparison is None:
        return None
    return Evaluation(
        before=before,
        after=after,
        comparison=comparison,
        changes=tabulate_changes(comparison),
        signs=tabulate_signs(summarize_signs(before), summarize_signs(after)),
        scenarios=len({row["scenario"] for row in (*before, *after)}),
    )


def _draw_figures(
    folder: Path, metrics: Sequence[Mapping[str, float | None]], evaluation: Evaluation | None
) -> list[ShownFigure]:
    shown = []
    if evaluation is not None and (forest := draw_forest(evaluation.comparison)) is not None:
        save_figure(forest, "before-after", folder)
        svg = embed_svg(folder / "before-after.svg", "Paired differences from before to after with 95 % intervals")
        caption = (
            "Each dialogue after training is paired with the one before it: same scenario, same sample. A filled dot "
            "means that the interval leaves out zero, an open dot that it does not. For rounds, less is better."
        )
        shown.append(ShownFigure("result", svg, caption))
    for chart in CHARTS:
        figure = draw_chart(chart, metrics) if metrics else None
        if figure is not None:
            save_figure(figure, chart.name, folder)
            svg = embed_svg(folder / f"{chart.name}.svg", f"{chart.title}, over training steps")
            shown.append(ShownFigure(chart.section, svg, chart.caption))
    return shown


def _list_facts(metrics: Sequence[Mapping[str, float | None]], settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader asks first of a run: model, steps, seed, time and memory; unknown ones are left out."""
    facts: list[tuple[str, str]] = []
    if "model" in settings:
        facts.append(("model", str(settings["model"].get("name", "–"))))
        facts.append(("from", str(settings["model"].get("adapter", "–"))))
    if metrics:
        facts.append(("steps", str(len(metrics))))
    if "seed" in settings:
        facts.append(("seed", str(settings["seed"])))
    _, seconds = read_series(metrics, "time/step_seconds")
    if seconds:
        total = sum(seconds)
        facts.append(("time", f"{total / 3600:.1f} h" if total >= 3600 else f"{total / 60:.0f} min"))
        facts.append(("a step", f"{sum(seconds) / len(seconds):.1f} s"))
    _, gigabytes = read_series(metrics, "memory/peak_gb")
    if gigabytes:
        facts.append(("memory", f"{max(gigabytes):.1f} GB"))
    _, unscored = read_series(metrics, "unscored/share")
    if unscored:
        facts.append(("unscored", show(sum(unscored) / len(unscored), "share")))
    if parting := word_parting(*read_series(metrics, "judges/parted")):
        facts.append(("judges", parting))
    return facts
