"""What a study trains and compares: its recipes, its runs and the settings of its comparisons."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from comity.config import DemoConfig, EvaluateConfig, StudyConfig, TrainConfig, load_config
from comity.demo import comparable_judges
from comity.errors import ConfigError
from comity.runs import read_metrics
from comity.training.checkpoint import list_checkpoints

BASE = "base"
"""The name of the model that the arms began with."""
EVERY_CHECKPOINT = 1_000_000
Run = tuple[str, int]
"""An arm or ablation and a seed."""


def load_recipes(config: StudyConfig) -> dict[str, TrainConfig]:
    """Return the training settings of every arm, then every ablation, in the size of the study.

    Raise ConfigError for a bad name, a missing file, another model, or an arm that the targets need and that lacks.
    """
    if not config.arms:
        raise ConfigError("arms is empty: name a recipe as NAME=FILE")
    recipes: dict[str, TrainConfig] = {}
    matched = {word.partition(":")[0] for word in config.match_tokens}
    for setting, words in (("arms", config.arms), ("ablations", config.ablations)):
        for word in words:
            name, _, file = word.partition("=")
            if not name or not file or name == BASE or name in recipes:
                raise ConfigError(f"{setting} has {word!r}: write NAME=FILE, each name once and none of them {BASE!r}")
            recipes[name] = _resize(config, load_config(DemoConfig, Path(file)).train, name in matched)
    first = next(iter(recipes))
    for name, settings in recipes.items():
        if settings.model != recipes[first].model:
            raise ConfigError(f"arms {first!r} and {name!r} begin with different models: compare arms of one model")
    for setting, name in (("negotiating", config.negotiating), ("single", config.single)):
        if name not in list_names(config.arms):
            known = ", ".join(list_names(config.arms))
            raise ConfigError(f"{setting} is {name!r}, which is no arm: name one of {known}")
    return recipes


def list_names(words: Sequence[str]) -> list[str]:
    """Return the names in words NAME=FILE."""
    return [word.partition("=")[0] for word in words]


def _resize(config: StudyConfig, settings: TrainConfig, is_matched: bool) -> TrainConfig:
    optimization = settings.optimization
    # A token-matched run ends by its tokens: the recipe's steps are only its cap.
    steps = optimization.steps if is_matched or not config.steps else config.steps
    scenarios = config.scenarios_per_step or optimization.scenarios_per_step
    resized = dataclasses.replace(optimization, steps=steps, scenarios_per_step=scenarios)
    return dataclasses.replace(settings, optimization=resized)


def parse_matches(words: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    """Return whose tokens each arm matches; raise ConfigError for an unknown arm or a chain."""
    known = list(names)
    matches: dict[str, str] = {}
    for word in words:
        name, _, other = word.partition(":")
        if name not in known or other not in known or name == other:
            raise ConfigError(f"match_tokens has {word!r}: write ARM:OTHER with two of {', '.join(known)}")
        matches[name] = other
    for name, other in matches.items():
        if other in matches:
            raise ConfigError(f"match_tokens lets {name!r} match {other!r}, which matches another: name the first")
    return matches


def list_runs(config: StudyConfig, matches: Mapping[str, str]) -> list[Run]:
    """Return every training run in the order in which they are made: those that others match, then those that match."""
    arms = list_names(config.arms)
    # Arms whose tokens others match come first, ablations last.
    runs = [(name, seed) for name in sorted(arms, key=lambda name: name in matches) for seed in range(config.seeds)]
    return runs + list_ablation_runs(config)


def list_ablation_runs(config: StudyConfig) -> list[Run]:
    """Return the runs of the ablations."""
    return [(name, seed) for name in list_names(config.ablations) for seed in range(config.ablation_seeds)]


def run_folder(config: StudyConfig, name: str, seed: int) -> Path:
    """Return where a training run lies."""
    return config.run / f"{name}-seed-{seed}"


def plan_run(
    config: StudyConfig, recipes: Mapping[str, TrainConfig], name: str, seed: int, matches: Mapping[str, str]
) -> TrainConfig:
    """Return the settings of one training run; a token-matched arm takes its budget from the finished other run."""
    run = run_folder(config, name, seed)
    settings = dataclasses.replace(recipes[name], run=run, seed=seed, resume=(run / "config.json").exists())
    if config.curve_every and seed == 0 and name in list_names(config.arms):
        settings = dataclasses.replace(settings, save_every=config.curve_every, keep_checkpoints=EVERY_CHECKPOINT)
    if name not in matches:
        return settings
    budget = int(count_sampled(run_folder(config, matches[name], seed)))
    return dataclasses.replace(settings, optimization=dataclasses.replace(settings.optimization, token_budget=budget))


def is_trained(settings: TrainConfig) -> bool:
    """Tell whether a run has taken its last step, or spent its tokens, and left its checkpoint."""
    checkpoints = list_checkpoints(settings.run)
    if not checkpoints:
        return False
    step = step_of(checkpoints[-1])
    metrics = read_metrics(settings.run)
    budget = settings.optimization.token_budget
    is_spent = bool(budget) and count_sampled(settings.run) >= budget and step == metrics[-1]["step"]
    return step >= settings.optimization.steps or is_spent


def step_of(checkpoint: Path) -> int:
    """Return after which step a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def count_sampled(run: Path) -> float:
    """Return how many tokens a run has sampled so far."""
    return sum(row.get("sampled/tokens", 0.0) for row in read_metrics(run))


def plan_evaluation(config: StudyConfig, recipes: Mapping[str, TrainConfig]) -> EvaluateConfig:
    """Return the settings of the comparison of the arms: the base and the last checkpoint of each seed.

    All play under the rules of the first arm. Only the base and the negotiating arm answer IFEval.
    """
    runs = [(name, seed) for name in list_names(config.arms) for seed in range(config.seeds)]
    first = next(iter(recipes.values()))
    return dataclasses.replace(
        config.evaluation,
        models=_list_models(config, first.model.adapter, runs),
        out=config.run / "evaluation",
        threads=first.threads,
        model=first.model,
        negotiation=first.negotiation,
        judges=comparable_judges(first.judges),
        access=first.access,
    )


def plan_ability(config: StudyConfig, evaluation: EvaluateConfig) -> EvaluateConfig:
    """Return the settings under which the base and the negotiating arm answer IFEval."""
    wanted = {BASE, *(f"{config.negotiating}-seed-{seed}" for seed in range(config.seeds))}
    models = tuple(word for word in evaluation.models if word.partition("=")[0] in wanted)
    return dataclasses.replace(evaluation, models=models)


def plan_ablations(config: StudyConfig, evaluation: EvaluateConfig) -> EvaluateConfig:
    """Return the settings of the comparison of ablations; it shares the folder, so nothing is played twice."""
    runs = [(config.negotiating, seed) for seed in range(config.ablation_seeds)] + list_ablation_runs(config)
    base = evaluation.models[0].partition("=")[2]
    return _only_conflicts(dataclasses.replace(evaluation, models=_list_models(config, base, runs)))


def plan_curves(config: StudyConfig, evaluation: EvaluateConfig) -> EvaluateConfig:
    """Return the settings under which every kept checkpoint of seed 0 of the arms plays held-out tasks."""
    kept = {
        f"{name}-step-{step_of(path)}": path
        for name in list_names(config.arms)
        for path in list_checkpoints(run_folder(config, name, 0))
    }
    models = (evaluation.models[0], *(f"{name}={path}" for name, path in kept.items()))
    limited = dataclasses.replace(evaluation, models=models, out=config.run / "curves", limit=config.curve_tasks)
    return _only_conflicts(limited)


def _only_conflicts(evaluation: EvaluateConfig) -> EvaluateConfig:
    decoding = "sampled" if "sampled" in evaluation.decoding else evaluation.decoding[0]
    return dataclasses.replace(
        evaluation, open_ended="none", transfer="none", alone=False, ifeval="none", decoding=(decoding,)
    )


def _list_models(config: StudyConfig, base: str, runs: Sequence[Run]) -> tuple[str, ...]:
    folders = [run_folder(config, name, seed) for name, seed in runs]
    return (f"{BASE}={base}", *(f"{folder.name}={list_checkpoints(folder)[-1]}" for folder in folders))
