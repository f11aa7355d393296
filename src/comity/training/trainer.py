"""The training loop, readable from top to bottom (paper, sections 3 and 4).

Each step: draw scenarios, play a group of dialogues for each with the current policy in both seats (seat 1 is the copy
frozen for this step), let the judges decide and score, turn rewards into group advantages, and push the policy along
the gradient of its own words. Where several processes train together, each plays and learns from its share of the
step's dialogues, and the first one writes the run directory.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from comity.config import OptimizationConfig, TrainConfig
from comity.engines.allocator import give_back_freed_memory
from comity.errors import ComityError, ConfigError, JudgeError
from comity.judges.human import read_human_ratings
from comity.judges.signs import summarize_signs
from comity.runs import (
    append_metrics,
    create_run,
    describe_settings,
    negotiation_row,
    read_metrics,
    truncate_run,
    write_negotiations,
)
from comity.scenarios.steps import load_training_rows
from comity.training.advantages import group_advantages
from comity.training.checkpoint import (
    Checkpoint,
    capture,
    list_checkpoints,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from comity.training.clock import Clock
from comity.training.distributed import (
    is_writer,
    open_processes,
    run_on_writer,
    share_of,
)
from comity.training.parting import describe_parting, find_partings, summarize_parting
from comity.training.reread import Reread, reread_dialogues
from comity.training.rollouts import prepare_play
from comity.training.samples import make_samples
from comity.training.session import Crew, Session, open_session
from comity.training.sharding import whole_base
from comity.training.summaries import count_sampled_tokens, count_unwatched, summarize_rewards, summarize_staleness
from comity.training.trackers import open_trackers
from comity.training.update import update_policy
from comity.training.verdicts import count_since, require_verdicts, summarize_passed_on, summarize_spend
from comity.types import Judged, Negotiation

OnStep = Callable[[int, dict[str, float]], None]
OnProgress = Callable[[Sequence[Negotiation]], None]


def train(
    config: TrainConfig,
    on_step: OnStep | None = None,
    on_progress: OnProgress | None = None,
    crew: Crew | None = None,
) -> Session:
    """Train to the configured step, from the last checkpoint with `resume`; return what is in memory at the end.

    `on_step` gets the metrics of every finished step, `on_progress` the dialogues after every batch of messages.
    Started as one of several processes, it trains together with them; callbacks are called in each. With a `crew`,
    text is sampled and judged in other processes.
    """
    if config.cluster.kind != "none" and crew is None:
        raise ConfigError(f"cluster.kind is {config.cluster.kind!r}, which only `comity train` starts: choose none")
    if config.threads:
        torch.set_num_threads(config.threads)
    rows = load_training_rows(config)
    if config.judges.human != "none":
        read_human_ratings(Path(config.judges.human))  # ratings that do not do are told before a model is loaded
    processes = open_processes(config.model.device, config.process_timeout_seconds)
    require_work(processes.world_size, config.optimization)
    # The run directory comes last: a mistyped model leaves nothing behind.
    session = open_session(config, rows.dilemmas, rows.pairs, processes, rows.questions, crew)
    with closing(session.panel), closing(session.plays):
        run_on_writer(processes, lambda: create_run(config.run, describe_settings(config), config.resume))
        run_steps(session, on_step, on_progress)
    processes.close()
    return session


def require_work(world_size: int, settings: OptimizationConfig) -> None:
    """Raise ConfigError when a step has fewer dialogues than there are processes."""
    count = settings.scenarios_per_step * settings.group_size
    if world_size > count:
        raise ConfigError(
            f"optimization.scenarios_per_step {settings.scenarios_per_step} x group_size {settings.group_size} is less "
            f"than the {world_size} processes: raise it, or start at most {count} processes"
        )


def run_steps(session: Session, on_step: OnStep | None = None, on_progress: OnProgress | None = None) -> None:
    """Take the steps that a run still lacks, from its last checkpoint with `resume`, and write them down."""
    config = session.config
    writes = is_writer(session.processes)
    begin = run_on_writer(session.processes, lambda: _find_beginning(session))
    done = 0 if begin is None else restore(begin, session.optimizer)
    trackers = open_trackers(config) if writes else []
    budget = config.optimization.token_budget
    history = run_on_writer(session.processes, lambda: read_metrics(config.run))
    sampled = sum(row.get("sampled/tokens", 0.0) for row in history)
    for step in range(done + 1, config.optimization.steps + 1):
        if budget and sampled >= budget:
            break
        try:
            metrics = train_step(session, step, on_progress)
        except ComityError:
            # A step that cannot be judged or paid for was not taken: what was learned before it is kept.
            if writes and step - 1 > done and session.optimizer.last_step != step:
                save_checkpoint(config.run, step - 1, session.model, session.optimizer, config.keep_checkpoints)
            raise
        sampled += metrics["sampled/tokens"]
        is_last = step == config.optimization.steps or bool(budget and sampled >= budget)
        partings = find_partings([*history, metrics], config.judges)
        metrics |= summarize_parting(partings)
        history.append(metrics)
        pauses = config.judges.parted == "pause" and not is_last and any(parting.parted for parting in partings)
        if writes:
            append_metrics(config.run, metrics)
        for track in trackers:
            track(step, metrics)
        if writes and (step % config.save_every == 0 or is_last or pauses):
            save_checkpoint(config.run, step, session.model, session.optimizer, config.keep_checkpoints)
        if on_step is not None:
            on_step(step, metrics)
        if pauses:
            raise JudgeError(
                f"judges.parted is pause and {describe_parting(partings)}; checkpoint-"
                f"{step} is kept: read dialogues of the last steps, and go on with --judges.parted warn --resume"
            )


def _find_beginning(session: Session) -> Checkpoint | None:
    # Only the writer looks into the run directory: other machines need not share its disk.
    config = session.config
    checkpoints = list_checkpoints(config.run) if config.resume else []
    begin = read_checkpoint(checkpoints[-1]) if checkpoints else None
    truncate_run(config.run, begin.step if begin else 0)
    if begin is None and session.processes.world_size > 1:
        return capture(session.optimizer)
    return begin


def train_step(session: Session, step: int, on_progress: OnProgress | None = None) -> dict[str, float]:
    """Play, judge and learn once; write the dialogues and return the step's metrics. `step` counts from 1."""
    config, processes = session.config, session.processes
    settings = config.optimization
    clock = Clock()
    spent, passed_before = run_on_writer(processes, session.panel.read_spend), session.panel.count_passed_on()
    judged, played = session.plays.take(step, lambda later: prepare_play(session, later, step - 1, on_progress))
    clock.add(played)
    everyone = [item for part in processes.gather_on_writer(judged) for item in part]
    run_on_writer(processes, lambda: require_verdicts(everyone, step, config.judges.max_unscored_share))
    rewards = [np.nan if item.reward is None else item.reward for item in judged]
    rewards_SG = np.array([reward for part in processes.gather(rewards) for reward in part], dtype=np.float64).reshape(
        settings.scenarios_per_step, settings.group_size
    )
    advantages_SG = group_advantages(rewards_SG, settings.advantage_scale)
    share = share_of(rewards_SG.size, processes)
    samples = make_samples(judged, advantages_SG.ravel()[share], settings, config.negotiation)
    pad_id = session.engine.tokenizer.pad_token_id
    with clock.measure("update"):
        update = update_policy(session.model, session.optimizer, samples, step, pad_id, processes)
        give_back_freed_memory()  # each step's dialogues have other lengths: what is kept would be more with every step
    reread: list[Reread] = []
    if config.store_tokens:
        budget = settings.micro_batch_tokens
        with whole_base(session.model):
            own = reread_dialogues(session.model, judged, config.negotiation, budget, pad_id)
        reread = [item for part in processes.gather_on_writer(own) for item in part]
    told = run_on_writer(
        processes, lambda: _write_dialogues(session, step, everyone, reread, rewards_SG, advantages_SG)
    )
    if session.panel.costs_money:
        told |= run_on_writer(processes, lambda: summarize_spend(spent, session.panel.read_spend()))
    passed = summarize_passed_on(processes.gather(count_since(passed_before, session.panel.count_passed_on())))
    return {"step": float(step)} | told | passed | update | _largest(processes.gather(clock.metrics()))


def _write_dialogues(
    session: Session,
    step: int,
    judged: Sequence[Judged],
    reread: Sequence[Reread],
    rewards_SG: NDArray[np.float64],
    advantages_SG: NDArray[np.float64],
) -> dict[str, float]:
    config = session.config
    token_text = session.engine.token_text if config.store_tokens else None
    rows = [
        negotiation_row(item, advantage, token_text, again)
        for item, advantage, again in zip(judged, advantages_SG.ravel(), reread or [()] * len(judged), strict=True)
    ]
    write_negotiations(config.run, step, rows)
    signs = {f"signs/{key}": value for key, value in summarize_signs(rows).items()}
    sampled = {"sampled/tokens": float(sum(map(count_sampled_tokens, judged)))}
    unwatched = count_unwatched(judged) if session.panel.watches_answers else {}
    staleness = summarize_staleness(judged, step - 1)
    return summarize_rewards(judged, rewards_SG, advantages_SG) | unwatched | signs | sampled | staleness


def _largest(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    # Time and memory of the slowest and the largest process: they are what a run waits for and what has to fit.
    return {key: max(part[key] for part in parts) for key in parts[0]} | {"process/count": float(len(parts))}
