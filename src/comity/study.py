"""Train several recipes with several seeds, compare every checkpoint on the same tasks, and report.

    RUN/
      ARM-seed-S/       one training run for each arm and seed
      evaluation/       the comparison of all checkpoints with the model they began with (see `evaluation/contest.py`)
      arms/             the same dialogues with the seeds of an arm pooled: results, tables, figures, page

Each training run, and each batch of the comparison, is written when it is done: a study that was stopped goes on.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comity.config import DemoConfig, EvaluateConfig, StudyConfig, TrainConfig, load_config
from comity.demo import comparable_judges
from comity.errors import ConfigError
from comity.evaluation.ability import answer_prompts, require_checker
from comity.evaluation.contest import OnBatch, play_contest
from comity.evaluation.models import require_packages, summarize_folder, summarize_judged
from comity.report.contest import write_contest_report
from comity.runs import read_metrics
from comity.scenarios.rows import Row, write_rows
from comity.training.checkpoint import list_checkpoints
from comity.training.trainer import train

BASE = "base"
"""The name of the model that the arms began with."""
OnStep = Callable[[str, int, dict[str, float]], None]


def run_study(config: StudyConfig, on_step: OnStep | None = None, on_batch: OnBatch | None = None) -> dict[str, Any]:
    """Run what a study still lacks and return the results of its arms, seeds pooled.

    `on_step` gets the run's name, the step and its metrics. Raise ConfigError for bad arms before anything is trained.
    """
    require_packages()
    if config.evaluation.ifeval != "none":
        require_checker()
    arms = load_arms(config)
    matches = parse_matches(config.match_tokens, arms)
    # Arms whose tokens others match come first.
    for name in sorted(arms, key=lambda name: name in matches):
        for seed in range(config.seeds):
            settings = plan_run(config, arms, name, seed, matches)
            if not is_trained(settings):
                label = settings.run.name
                told = None if on_step is None else _label_steps(on_step, label)
                train(settings, told)
    evaluation = plan_evaluation(config, arms)
    rows = play_contest(evaluation, on_batch)
    if evaluation.ifeval != "none":
        answer_prompts(evaluation)
    # Seeds are compared by their scores: a paid judge is asked about arms alone.
    summarize_folder(evaluation, rows)
    write_contest_report(evaluation.out)
    pooled = dataclasses.replace(evaluation, out=config.run / "arms", ifeval="none")
    together = pool_seeds(rows, list(arms), config.seeds)
    write_rows(pooled.out / "dialogues.jsonl", together)
    results = summarize_judged(pooled, together)
    write_contest_report(pooled.out)
    return results


def load_arms(config: StudyConfig) -> dict[str, TrainConfig]:
    """Return the training settings of each arm; raise ConfigError for a bad name, a missing file or another model."""
    arms: dict[str, TrainConfig] = {}
    for word in config.arms:
        name, _, file = word.partition("=")
        if not name or not file or name == BASE or name in arms:
            raise ConfigError(f"arms has {word!r}: write NAME=FILE, each name once and none of them {BASE!r}")
        arms[name] = load_config(DemoConfig, Path(file)).train
    if not arms:
        raise ConfigError("arms is empty: name a recipe as NAME=FILE")
    first = next(iter(arms))
    for name, settings in arms.items():
        if settings.model != arms[first].model:
            raise ConfigError(f"arms {first!r} and {name!r} begin with different models: compare arms of one model")
    return arms


def parse_matches(words: Sequence[str], arms: Mapping[str, TrainConfig]) -> dict[str, str]:
    """Return whose tokens each arm matches; raise ConfigError for an unknown arm or a chain."""
    matches: dict[str, str] = {}
    for word in words:
        name, _, other = word.partition(":")
        if name not in arms or other not in arms or name == other:
            raise ConfigError(f"match_tokens has {word!r}: write ARM:OTHER with two of {', '.join(arms)}")
        matches[name] = other
    for name, other in matches.items():
        if other in matches:
            raise ConfigError(f"match_tokens lets {name!r} match {other!r}, which matches another: name the first")
    return matches


def plan_run(
    config: StudyConfig, arms: Mapping[str, TrainConfig], name: str, seed: int, matches: Mapping[str, str]
) -> TrainConfig:
    """Return the settings of one training run; a token-matched arm takes its budget from the finished other run."""
    run = _run_folder(config, name, seed)
    settings = dataclasses.replace(arms[name], run=run, seed=seed, resume=(run / "config.json").exists())
    if name not in matches:
        return settings
    budget = int(count_sampled(_run_folder(config, matches[name], seed)))
    return dataclasses.replace(settings, optimization=dataclasses.replace(settings.optimization, token_budget=budget))


def is_trained(settings: TrainConfig) -> bool:
    """Tell whether a run has taken its last step, or spent its tokens, and left its checkpoint."""
    checkpoints = list_checkpoints(settings.run)
    if not checkpoints:
        return False
    step = int(checkpoints[-1].name.removeprefix("checkpoint-"))
    metrics = read_metrics(settings.run)
    budget = settings.optimization.token_budget
    is_spent = bool(budget) and count_sampled(settings.run) >= budget and step == metrics[-1]["step"]
    return step >= settings.optimization.steps or is_spent


def count_sampled(run: Path) -> float:
    """Return how many tokens a run has sampled so far."""
    return sum(row.get("sampled/tokens", 0.0) for row in read_metrics(run))


def plan_evaluation(config: StudyConfig, arms: Mapping[str, TrainConfig]) -> EvaluateConfig:
    """Return the settings of the comparison: the base and every checkpoint, under the rules of the first arm."""
    first = next(iter(arms.values()))
    models = [f"{BASE}={first.model.adapter}"]
    for name in arms:
        for seed in range(config.seeds):
            run = _run_folder(config, name, seed)
            models.append(f"{run.name}={list_checkpoints(run)[-1]}")
    return dataclasses.replace(
        config.evaluation,
        models=tuple(models),
        out=config.run / "evaluation",
        threads=first.threads,
        model=first.model,
        negotiation=first.negotiation,
        judges=comparable_judges(first.judges),
        access=first.access,
    )


def pool_seeds(rows: Sequence[Row], arms: Sequence[str], seeds: int) -> list[Row]:
    """Return self-play dialogues under the names of arms, each run of a seed as a run of its own.

    `seed` says which one; the base's dialogues stand once for each seed, so that each seed has its partner. Intervals
    resample scenarios, and the deviation of a measure is the one between seeds.
    """
    count = 1 + max((row["run"] for row in rows), default=0)
    places = {f"{arm}-seed-{seed}": (arm, seed) for arm in arms for seed in range(seeds)}
    pooled = []
    for row in rows:
        if row["model"] != row["opponent"]:
            continue
        copies = [(BASE, seed) for seed in range(seeds)] if row["model"] == BASE else [places[row["model"]]]
        for name, seed in copies:
            run = seed * count + row["run"]
            pooled.append({**row, "model": name, "opponent": name, "run": run, "seed": seed})
    return pooled


def _run_folder(config: StudyConfig, name: str, seed: int) -> Path:
    return config.run / f"{name}-seed-{seed}"


def _label_steps(on_step: OnStep, label: str) -> Callable[[int, dict[str, float]], None]:
    return lambda step, metrics: on_step(label, step, metrics)
