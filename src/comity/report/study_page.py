"""The page of a study, Markdown filled from its files alone: targets, runs, results, ablations, curves, costs.

Notes of its authors come last, see `notes` in the study's settings.

RUN/study.md with RUN/figures/NAME.svg and .png; `publish_study` writes the same page elsewhere, figures beside it.
"""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comity.report.contest_tables import PlainTable, tabulate_ability, tabulate_entry, to_markdown
from comity.report.figures import save_figure
from comity.report.study_figures import NamedFigure, average_seeds, draw_curves
from comity.report.study_tables import (
    tabulate_changes,
    tabulate_runs,
    tabulate_targets,
    tabulate_zero_rewards,
    tell_targets,
)
from comity.runs import read_json, read_metrics
from comity.scenarios.rows import Row, read_whole_rows


def is_study(folder: Path) -> bool:
    """Tell whether a folder holds a study."""
    return (folder / "study.json").exists()


def write_study_page(run: Path) -> Path:
    """Write RUN/study.md and RUN/figures from what a finished study left; return the page's path.

    Raise RunError when the study lacks its comparison. No model is loaded.
    """
    figures = _draw_figures(run)
    for drawn in figures:
        save_figure(drawn.figure, drawn.name, run / "figures")
    page = run / "study.md"
    _write(page, build_page(run, figures))
    return page


def publish_study(run: Path, page: Path) -> None:
    """Copy the page of RUN/study.md to another place, its figures into `images/study` beside it."""
    folder = page.parent / "images" / "study"
    folder.mkdir(parents=True, exist_ok=True)
    text = (run / "study.md").read_text(encoding="utf-8")
    for name in re.findall(r"\]\(figures/(.+)\.svg\)", text):
        shutil.copyfile(run / "figures" / f"{name}.svg", folder / f"{name}.svg")
    _write(page, text.replace("](figures/", "](images/study/"))


def build_page(run: Path, figures: Sequence[NamedFigure]) -> str:
    """Return the page's Markdown, which names its figures in the folder `figures`."""
    study = read_json(run / "study.json")
    runs = _latest_runs(read_whole_rows(run / "runs.jsonl"))
    results, targets = read_json(run / "arms" / "results.json"), read_json(run / "targets.json")
    negotiating = study["settings"]["negotiating"]
    parts = [
        "# The study",
        "`comity study` writes this page from the files of its run; figures stand here only if they were measured.",
        _tell_study(run, study["settings"], runs),
        "## Targets",
        tell_targets(targets),
        to_markdown(tabulate_targets(targets)),
        "## Results of the arms",
        f"Seeds are pooled: ± is the deviation between seeds. Answers are compared by: {results['preference_judge']}. "
        f"`base` is the model that every arm began with.",
        f"Differences are those from `{negotiating}`; all others lie in `arms/tables` of the run.",
        *(to_markdown(table) for table in _list_tables(results["entries"], negotiating)),
        *_tell_ability(run),
        *_tell_ablations(run, negotiating),
        "## Curves",
        _tell_curves(run) if figures else "No curves were drawn.",
        *(f"![{drawn.caption}](figures/{drawn.name}.svg)" for drawn in figures),
        "## Zero rewards",
        to_markdown(tabulate_zero_rewards(run, runs)),
        "## Runs and what they took",
        to_markdown(tabulate_runs(runs)),
        _tell_evaluation_seconds(run),
        *_read_notes(run),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _tell_study(run: Path, settings: Mapping[str, Any], runs: Sequence[Row]) -> str:
    played = read_whole_rows(run / "evaluation" / "seconds.jsonl")
    days = [row["finished"][:10] for row in [*runs, *played]]
    commits = list(dict.fromkeys(str(row["commit"] or "unknown")[:7] for row in runs))
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in runs}))
    judges = {
        key.removeprefix("judges."): value
        for key, value in read_json(run / "evaluation" / "settings.json")["settings"].items()
        if key.startswith("judges.")
    }
    heldout = f"`{judges['heldout_judge']}`, the pair that never trains" if judges["heldout"] else "none"
    evaluation = settings["evaluation"]
    limit = f"at most {evaluation['limit']} tasks of each kind" if evaluation["limit"] else "all tasks"
    lines = (
        f"- Dates: {_span(days)}. Commits: {', '.join(commits)}. Seeds: {seeds}.",
        f"- {len(runs)} training runs of {_span(row['steps'] for row in runs)} steps; "
        f"{sum(row['seconds'] for row in runs) / 3600:.2f} hours of training, "
        f"{sum(row['seconds'] for row in played) / 3600:.2f} hours of playing and judging the tasks.",
        f"- Evaluation: {limit}, decoding {' and '.join(evaluation['decoding'])}, sampled runs: {evaluation['runs']}.",
        f"- Judges: agreement `{judges['agreement']}`, Collective Agency `{judges['agency']}`; not used in training: "
        f"{heldout}.",
        f"- Paid to judges behind an address: {sum(row['dollars'] for row in runs):.2f} dollars in training.",
    )
    return "\n".join(lines)


def _list_tables(entries: Sequence[Mapping[str, Any]], negotiating: str) -> list[PlainTable]:
    tables = []
    for entry in entries:
        own = [item for item in entry["comparisons"] if negotiating in (item["first"], item["second"])]
        tables += tabulate_entry({**entry, "comparisons": own})
    return tables


def _tell_ability(run: Path) -> list[str]:
    results = read_json(run / "evaluation" / "results.json")
    if "ifeval" not in results:
        return ["## General ability", "IFEval was not measured: the study was given no file of its prompts."]
    return ["## General ability", to_markdown(tabulate_ability(results["ifeval"]))]


def _tell_ablations(run: Path, negotiating: str) -> list[str]:
    path = run / "ablations" / "results.json"
    if not path.exists():
        return []
    results = read_json(path)
    measures = [table for table in _list_tables(results["entries"], negotiating) if table.name.endswith("measures")]
    return [
        "## Ablations",
        *(to_markdown(table) for table in [*measures, tabulate_changes(results["entries"], negotiating)]),
    ]


def _draw_figures(run: Path) -> list[NamedFigure]:
    runs = _latest_runs(read_whole_rows(run / "runs.jsonl"))
    study = read_json(run / "study.json")["settings"]
    arms = [word.partition("=")[0] for word in study["arms"]]
    training = {
        arm: average_seeds([read_metrics(run / row["run"]) for row in runs if row["arm"] == arm]) for arm in arms
    }
    alone = {row["arm"] for row in runs if read_json(run / row["run"] / "config.json")["settings"]["solo"]}
    drawn = draw_curves(training, "training", [arm for arm in arms if arm not in alone])
    if (run / "curves.json").exists():
        drawn += draw_curves(read_json(run / "curves.json"), "held-out", arms)
    return drawn


def _tell_evaluation_seconds(run: Path) -> str:
    rows = []
    for place in ("evaluation", "curves"):
        played = read_whole_rows(run / place / "seconds.jsonl")
        if played:
            seconds, dialogues = (sum(row[key] for row in played) for key in ("seconds", "dialogues"))
            rows.append(f"`{place}`: {dialogues} dialogues in {seconds / 60:.1f} minutes, {seconds / dialogues:.2f} "
                        f"seconds each, so {100 * seconds / dialogues / 60:.1f} minutes for 100.")  # fmt: skip
    return "\n".join(f"- {row}" for row in rows)


def _tell_curves(run: Path) -> str:
    training = "Training: means over the seeds of an arm."
    if not (run / "curves.json").exists():
        return f"{training} No checkpoint on the way was compared on held-out tasks."
    return f"{training} Held-out: checkpoints of seed 0 on conflict tasks; step 0 is the base."


def _read_notes(run: Path) -> list[str]:
    path = run / "notes.md"
    return [path.read_text(encoding="utf-8")] if path.exists() else []


def _latest_runs(rows: Sequence[Row]) -> list[Row]:
    # A run that was lengthened stands twice: its last row counts.
    return list({row["run"]: row for row in rows}.values())


def _span(values: Iterable[int | str]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
