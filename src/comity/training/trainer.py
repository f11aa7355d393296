"""The training loop, readable from top to bottom (paper, sections 3 and 4).

Each step: draw scenarios, play a group of dialogues for each with the current policy in both seats (seat 1 is the copy
frozen for this step), let the judges decide and score, turn rewards into group advantages, and push the policy along
the gradient of its own words.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from comity.config import TrainConfig, to_plain
from comity.engines.local import LocalEngine
from comity.engines.models import load_tokenizer
from comity.judges.panel import Panel, build_panel
from comity.judges.signs import summarize_signs
from comity.negotiation.lockstep import play
from comity.negotiation.protocol import rounds_played, start
from comity.runs import (
    append_metrics,
    create_run,
    negotiation_row,
    truncate_run,
    write_negotiations,
)
from comity.scenarios.load import draw_scenarios, load_dilemmas, load_persona_pairs
from comity.scenarios.rows import Row
from comity.training.advantages import group_advantages
from comity.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from comity.training.policy import PolicyOptimizer, load_policy
from comity.training.samples import make_samples
from comity.training.trackers import open_trackers
from comity.training.update import update_policy
from comity.types import Judged, Negotiation

P = ParamSpec("P")
R = TypeVar("R")
OnStep = Callable[[int, dict[str, float]], None]
OnProgress = Callable[[Sequence[Negotiation]], None]


@dataclass(frozen=True)
class Session:
    """What a training run holds in memory: one base model for policy, opponent and embedded judges."""

    config: TrainConfig
    model: PreTrainedModel
    engine: LocalEngine
    panel: Panel
    optimizer: PolicyOptimizer
    dilemmas: Sequence[Row]
    pairs: Sequence[Row]


def train(config: TrainConfig, on_step: OnStep | None = None, on_progress: OnProgress | None = None) -> Session:
    """Train to the configured step, from the last checkpoint with `resume`; return what is in memory at the end.

    `on_step` gets the metrics of every finished step, `on_progress` the dialogues after every batch of messages.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    dilemmas, pairs = load_dilemmas(config.dilemmas, "train"), load_persona_pairs(config.personas)
    # The run directory comes last: a mistyped model leaves nothing behind.
    session = open_session(config, dilemmas, pairs)
    create_run(config.run, to_plain(config), config.resume)
    run_steps(session, on_step, on_progress)
    return session


def run_steps(session: Session, on_step: OnStep | None = None, on_progress: OnProgress | None = None) -> None:
    """Take the steps that a run still lacks, from its last checkpoint with `resume`, and write them down."""
    config = session.config
    done = 0
    checkpoints = list_checkpoints(config.run)
    if config.resume and checkpoints:
        done = load_checkpoint(checkpoints[-1], session.optimizer)
    truncate_run(config.run, done)
    trackers = open_trackers(config)
    for step in range(done + 1, config.optimization.steps + 1):
        metrics = train_step(session, step, on_progress)
        append_metrics(config.run, metrics)
        for track in trackers:
            track(step, metrics)
        if step % config.save_every == 0 or step == config.optimization.steps:
            save_checkpoint(config.run, step, session.model, session.optimizer, config.keep_checkpoints)
        if on_step is not None:
            on_step(step, metrics)


def open_session(config: TrainConfig, dilemmas: Sequence[Row], pairs: Sequence[Row]) -> Session:
    """Load the policy, its engine, the judges and the optimiser."""
    model = load_policy(config.model)
    engine = LocalEngine(model, load_tokenizer(config.model.name), config.model.thinking)
    panel = build_panel(config.judges, engine, config.model)
    optimizer = PolicyOptimizer.create(model, config.optimization)
    return Session(config, model, engine, panel, optimizer, dilemmas, pairs)


def train_step(session: Session, step: int, on_progress: OnProgress | None = None) -> dict[str, float]:
    """Play, judge and learn once; write the dialogues and return the step's metrics. `step` counts from 1."""
    config = session.config
    settings = config.optimization
    session.engine.policy_version = step - 1
    clock = _Clock()
    played = _play_groups(session, step, clock, on_progress)
    with clock.measure("judge"):
        judged = session.panel.judge(played)
    rewards_SG = np.array(
        [np.nan if item.reward is None else item.reward for item in judged], dtype=np.float64
    ).reshape(settings.scenarios_per_step, settings.group_size)
    advantages_SG = group_advantages(rewards_SG, settings.advantage_scale)
    samples = make_samples(judged, advantages_SG.ravel(), settings, config.negotiation)
    with clock.measure("update"):
        update = update_policy(
            session.model, session.optimizer, samples, settings, step, session.engine.tokenizer.pad_token_id
        )
    token_text = session.engine.token_text if config.store_tokens else None
    rows = [
        negotiation_row(item, advantage, token_text)
        for item, advantage in zip(judged, advantages_SG.ravel(), strict=True)
    ]
    write_negotiations(config.run, step, rows)
    metrics = {"step": float(step), **summarize_rewards(judged, rewards_SG, advantages_SG)}
    metrics |= {f"signs/{key}": value for key, value in summarize_signs(rows).items()}
    return metrics | update | clock.metrics()


def _play_groups(session: Session, step: int, clock: "_Clock", on_progress: OnProgress | None) -> list[Negotiation]:
    config = session.config
    count = config.optimization.scenarios_per_step
    scenarios = draw_scenarios(session.dilemmas, session.pairs, (step - 1) * count, count, config.seed, config.solo)
    states = [start(scenario, sample) for scenario in scenarios for sample in range(config.optimization.group_size)]
    # The step enters every request's seed: a scenario that comes again is played anew.
    return play(
        states,
        config.negotiation,
        clock.wrap("rollout", session.engine),
        clock.wrap("judge", session.panel.agreement),
        seed=config.seed * 1_000_003 + step,
        on_progress=on_progress,
    )


def summarize_rewards(
    judged: Sequence[Judged], rewards_SG: NDArray[np.float64], advantages_SG: NDArray[np.float64]
) -> dict[str, float]:
    """Return reward, agreement and zero-reward metrics of one step; means are over scored rollouts only."""
    flat, advantages = rewards_SG.ravel(), advantages_SG.ravel()
    scored = ~np.isnan(flat)
    metrics = {"unscored/share": float(1 - scored.mean())}
    if scored.any():
        metrics["reward/mean"] = float(flat[scored].mean())
    groups = [group[~np.isnan(group)] for group in rewards_SG if not np.isnan(group).all()]
    for name, reduce in (("min", np.min), ("mean", np.mean), ("max", np.max)):
        if groups:
            metrics[f"reward/group_{name}"] = float(np.mean([reduce(group) for group in groups]))
    agreed = np.array([item.negotiation.ending in ("agreed", "answered") for item in judged])
    flat_groups = np.repeat(~(advantages_SG != 0).any(axis=1), rewards_SG.shape[1])
    metrics |= {
        "agreement/rate": float(agreed[scored].mean()) if scored.any() else float("nan"),
        "zero/flat_groups": float(flat_groups.mean()),
        "zero/failed_in_mixed": float((~agreed & scored & ~flat_groups).mean()),
        "zero/used": float((agreed & (advantages != 0)).mean()),
    }
    metrics |= _means(
        {
            "agreement/rounds": [rounds_played(j.negotiation) for j, a in zip(judged, agreed, strict=True) if a],
            "agreement/heldout_rate": [j.heldout_agreed for j in judged if j.heldout_agreed is not None],
            "score/mean": [v.score for j in judged for v in j.verdicts if v.score is not None],
            "score/heldout_mean": [j.heldout_score for j in judged if j.heldout_score is not None],
        }
    )
    return {key: value for key, value in metrics.items() if not np.isnan(value)}


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {key: float(np.mean(items)) for key, items in values.items() if items}


class _Clock:
    """Seconds spent in each part of a step."""

    def __init__(self) -> None:
        self.seconds = {"rollout": 0.0, "judge": 0.0, "update": 0.0}
        self.begun = time.perf_counter()

    def measure(self, part: str) -> "_Span":
        return _Span(self, part)

    def wrap(self, part: str, function: Callable[P, R]) -> Callable[P, R]:
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.measure(part):
                return function(*args, **kwargs)

        return timed

    def metrics(self) -> dict[str, float]:
        parts = {f"time/{part}_seconds": seconds for part, seconds in self.seconds.items()}
        return {**parts, "time/step_seconds": time.perf_counter() - self.begun, "memory/peak_gb": peak_memory_gb()}


class _Span:
    def __init__(self, clock: _Clock, part: str) -> None:
        self.clock, self.part, self.begun = clock, part, 0.0

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.clock.seconds[self.part] += time.perf_counter() - self.begun


def peak_memory_gb() -> float:
    """Return the largest resident memory of this process so far, in GB (on CUDA: the device's largest allocation)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    memory = psutil.Process().memory_info()
    return float(getattr(memory, "peak_wset", 0) or _peak_resident_bytes()) / 1e9


def _peak_resident_bytes() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
