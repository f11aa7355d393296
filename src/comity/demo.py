"""The main job from end to end: train, compare on held-out scenarios, report."""

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from comity.config import DemoConfig, EvaluateConfig, JudgeConfig
from comity.engines.allocator import give_back_freed_memory
from comity.evaluation.run import evaluate
from comity.report.report import write_report
from comity.runs import read_json, read_metrics, write_json
from comity.training.checkpoint import list_checkpoints
from comity.training.clock import peak_memory_gb
from comity.training.trainer import train
from comity.types import Negotiation

SUMMARY_MEASURES = ("agreement_rate", "reward_mean", "rounds_mean")

OnStep = Callable[[int, dict[str, float]], None]
OnDialogues = Callable[[str, Sequence[Negotiation]], None]


def run_demo(config: DemoConfig, on_step: OnStep | None = None, on_dialogues: OnDialogues | None = None) -> Path:
    """Run the demo, continuing what an earlier run of it left, and return the path of the report.

    `on_step` gets the metrics of each training step; `on_dialogues` gets the part ("train", "before", "after") and its
    dialogues after every batch of messages. Leaves `summary.json` with `seconds`, `peak_rss_gb`, `steps` and the
    paired comparison; time of interrupted runs counts for finished steps only. A finished demo is not run again: only
    its report is written anew.
    """
    summary = config.run / "summary.json"
    if summary.is_file() and read_json(summary)["steps"] == config.train.optimization.steps:
        return write_report(config.run)
    begun = time.perf_counter()
    earlier = sum(row.get("time/step_seconds", 0.0) for row in read_metrics(config.run))
    settings = dataclasses.replace(config.train, run=config.run, resume=(config.run / "config.json").exists())
    session = train(settings, on_step, None if on_dialogues is None else lambda states: on_dialogues("train", states))
    del session  # the comparison loads its own models: keep one in memory
    gc.collect()
    give_back_freed_memory()
    results = evaluate(evaluation_settings(config), on_dialogues)
    comparison = results["comparison"]
    assert isinstance(comparison, dict)
    write_json(
        summary,
        {
            "seconds": round(earlier + time.perf_counter() - begun, 1),
            "peak_rss_gb": round(peak_memory_gb(), 3),
            "steps": settings.optimization.steps,
            "seed": settings.seed,
            **{measure: comparison[measure] for measure in SUMMARY_MEASURES},
        },
    )
    return write_report(config.run)


def evaluation_settings(config: DemoConfig) -> EvaluateConfig:
    """Return the settings of the comparison: the run's own model, rules and judges on the held-out split."""
    train_config = config.train
    access = train_config.access
    return EvaluateConfig(
        before=train_config.model.adapter,
        after=str(list_checkpoints(config.run)[-1]),
        out=config.run / "evaluation",
        split=config.split,
        scenarios=config.scenarios,
        samples=config.samples,
        seed=config.evaluation_seed,
        dilemmas=train_config.dilemmas,
        personas=train_config.personas,
        threads=train_config.threads,
        model=train_config.model,
        negotiation=train_config.negotiation,
        judges=comparable_judges(train_config.judges),
        access=dataclasses.replace(access, book_under=access.book_under or str(config.run)),  # one cap for both
    )


def comparable_judges(judges: JudgeConfig) -> JudgeConfig:
    """Return the judges of a comparison: a policy that rewards itself in training is judged by the embedded head."""
    return dataclasses.replace(judges, agency=JudgeConfig().agency) if "self" in judges.agency.split(",") else judges
