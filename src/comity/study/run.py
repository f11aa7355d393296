"""Train several recipes with several seeds, compare every checkpoint on the same tasks, report and publish.

    RUN/
      study.json        the settings, and the names of arms and ablations
      ARM-seed-S/       one training run for each arm and seed, with its own report
      runs.jsonl        one row a finished run: seconds, tokens, memory, commit, date
      evaluation/       the comparison of all checkpoints with the model they began with (see `evaluation/contest.py`)
      arms/             the same dialogues with the seeds of an arm pooled: results, tables, figures, page
      ablations/        the same for the ablations, beside the arm that they change
      curves/           held-out dialogues of checkpoints on the way
      curves.json       their figures, step by step
      targets.json      what the study set out to reach, and whether it did
      notes.md          what the user wrote about it, where `notes` names a file
      study.md          all of it on one page

Each training run, and each batch of the comparison, is written when it is done: a study that was stopped goes on.
"""

import dataclasses
import gc
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comity.config import EvaluateConfig, StudyConfig, TrainConfig, to_plain
from comity.errors import ConfigError
from comity.evaluation.ability import answer_prompts, require_checker
from comity.evaluation.contest import OnBatch, play_contest
from comity.evaluation.models import require_packages, summarize_folder, summarize_judged
from comity.evaluation.targets import check_targets
from comity.report.contest import write_contest_report
from comity.report.report import write_report
from comity.report.study_page import publish_study, write_study_page
from comity.runs import read_json, read_metrics, write_json
from comity.scenarios.rows import Row, append_rows, read_whole_rows, write_rows
from comity.study.curves import summarize_curves
from comity.study.plan import (
    BASE,
    Run,
    is_trained,
    list_ablation_runs,
    list_names,
    list_runs,
    load_recipes,
    parse_matches,
    plan_ability,
    plan_ablations,
    plan_curves,
    plan_evaluation,
    plan_run,
)
from comity.training.trainer import train

OnStep = Callable[[str, int, dict[str, float]], None]


def run_study(config: StudyConfig, on_step: OnStep | None = None, on_batch: OnBatch | None = None) -> dict[str, Any]:
    """Run what a study still lacks and return the results of its arms, seeds pooled.

    `on_step` gets the run's name, the step and its metrics. Raise ConfigError for bad arms before anything is trained.
    """
    require_packages()
    if config.evaluation.ifeval != "none":
        require_checker()
    if config.notes != "none" and not Path(config.notes).is_file():
        raise ConfigError(f"notes is {config.notes!r}, which is no file: name a Markdown file, or none")
    recipes = load_recipes(config)
    matches = parse_matches(config.match_tokens, list_names(config.arms))
    write_json(config.run / "study.json", {"settings": to_plain(config), "matches": matches})
    for name, seed in list_runs(config, matches):
        settings = plan_run(config, recipes, name, seed, matches)
        if not is_trained(settings):
            train(settings, None if on_step is None else _label_steps(on_step, settings.run.name))
            gc.collect()  # a model holds itself in circles, and the next run brings its own
        record_run(config.run, settings, name)
    evaluation = plan_evaluation(config, recipes)
    results = compare_arms(config, evaluation, on_batch)
    if config.ablations:
        compare_ablations(config, plan_ablations(config, evaluation), on_batch)
    if config.curve_every:
        curves = plan_curves(config, evaluation)
        write_json(config.run / "curves.json", summarize_curves(play_contest(curves, on_batch), BASE))
    if config.notes != "none":
        shutil.copyfile(config.notes, config.run / "notes.md")
    write_study_page(config.run)
    if config.page != "none":
        publish_study(config.run, Path(config.page))
    return results


def record_run(folder: Path, settings: TrainConfig, arm: str) -> None:
    """Write the report of a finished run, and a row about it unless it stands there with as many steps."""
    path = folder / "runs.jsonl"
    metrics = read_metrics(settings.run)
    known = {(row["run"], row["steps"]) for row in read_whole_rows(path)}
    if (settings.run.name, len(metrics)) in known:
        return
    write_report(settings.run)
    # A run may have been trained before this study took it up: its own files say when, and with what.
    written = (settings.run / "metrics.jsonl").stat().st_mtime
    row = {
        "run": settings.run.name,
        "arm": arm,
        "seed": settings.seed,
        "steps": len(metrics),
        "seconds": round(sum(row.get("time/step_seconds", 0.0) for row in metrics), 1),
        "sampled_tokens": int(sum(row.get("sampled/tokens", 0.0) for row in metrics)),
        "peak_gb": round(max((row.get("memory/peak_gb", 0.0) for row in metrics), default=0.0), 2),
        "dollars": round(sum(row.get("spend/dollars", 0.0) for row in metrics), 4),
        "commit": read_json(settings.run / "config.json")["commit"],
        "finished": datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds"),
    }
    append_rows(path, [row])


def compare_arms(config: StudyConfig, evaluation: EvaluateConfig, on_batch: OnBatch | None) -> dict[str, Any]:
    """Compare every seed of every arm, then the arms; write the targets and return the results of the arms."""
    names = [word.partition("=")[0] for word in evaluation.models]
    rows = [row for row in play_contest(evaluation, on_batch) if row["model"] in names and row["opponent"] in names]
    if evaluation.ifeval != "none":
        answer_prompts(plan_ability(config, evaluation))
    # Seeds are compared by their scores: a paid judge is asked about arms alone.
    seeds = summarize_folder(evaluation, rows)
    write_contest_report(evaluation.out)
    runs = [(name, seed) for name in list_names(config.arms) for seed in range(config.seeds)]
    results = summarize_pooled(evaluation, rows, runs, config.run / "arms")
    targets = check_targets(results["entries"], seeds.get("ifeval"), (BASE, config.single, config.negotiating))
    write_json(config.run / "targets.json", [dataclasses.asdict(target) for target in targets])
    return results


def compare_ablations(config: StudyConfig, evaluation: EvaluateConfig, on_batch: OnBatch | None) -> None:
    """Compare the ablations with the arm that they change, seeds pooled."""
    runs = [(config.negotiating, seed) for seed in range(config.ablation_seeds)] + list_ablation_runs(config)
    wanted = set(list_names(evaluation.models))
    rows = [
        row
        for row in play_contest(evaluation, on_batch)
        if row["model"] in wanted and row["task"] == "conflict" and row["decoding"] in evaluation.decoding
    ]
    summarize_pooled(evaluation, rows, runs, config.run / "ablations")


def summarize_pooled(evaluation: EvaluateConfig, rows: Sequence[Row], runs: Sequence[Run], out: Path) -> dict[str, Any]:
    """Write dialogues, results, tables, figures and page of arms with their seeds pooled; return the results."""
    pooled = dataclasses.replace(evaluation, out=out, ifeval="none")
    together = pool_seeds(rows, runs)
    write_rows(out / "dialogues.jsonl", together)
    results = summarize_judged(pooled, together)
    write_contest_report(out)
    return results


def pool_seeds(rows: Sequence[Row], runs: Sequence[Run]) -> list[Row]:
    """Return self-play dialogues under the names of arms, each run of a seed as a run of its own.

    `seed` says which one; the base's dialogues stand once for each seed, so that each seed has its partner. Intervals
    resample scenarios, and the deviation of a measure is the one between seeds.
    """
    count = 1 + max((row["run"] for row in rows), default=0)
    places = {f"{arm}-seed-{seed}": (arm, seed) for arm, seed in runs}
    seeds = sorted({seed for _, seed in runs})
    pooled = []
    for row in rows:
        if row["model"] != row["opponent"]:
            continue
        copies = [(BASE, seed) for seed in seeds] if row["model"] == BASE else [places[row["model"]]]
        for name, seed in copies:
            run = seed * count + row["run"]
            pooled.append({**row, "model": name, "opponent": name, "run": run, "seed": seed})
    return pooled


def _label_steps(on_step: OnStep, label: str) -> Callable[[int, dict[str, float]], None]:
    return lambda step, metrics: on_step(label, step, metrics)
