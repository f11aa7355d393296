"""Train under Ray: the driver, and what each trainer runs."""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch.distributed
from ray.actor import ActorHandle
from ray.train.torch import TorchConfig, TorchTrainer

from comity.cluster.journal import follow, start_journal
from comity.cluster.pools import JudgePool, RolloutPool
from comity.cluster.start import Staff, reach_cluster, reserve_places, start_staff
from comity.cluster.workers import LOCAL, Parts, enter_folder
from comity.config import TrainConfig
from comity.errors import ComityError, RunError
from comity.runs import check_run, describe_settings
from comity.training.distributed import ProcessLostError, require_no_launcher
from comity.training.policy import PolicyOptimizer
from comity.training.session import Crew, StepCrew
from comity.training.trainer import OnProgress, OnStep, require_work, train


@dataclass(frozen=True)
class Task:
    """What every trainer gets."""

    config: TrainConfig
    folder: str
    staff: Staff
    journal: ActorHandle
    shows_progress: bool


def train_on_ray(
    config: TrainConfig,
    on_step: OnStep | None = None,
    on_progress: OnProgress | None = None,
    parts: Parts = LOCAL,
) -> None:
    """Train as `training.trainer.train` does, with trainers, rollout workers and judges where Ray places them.

    Callbacks are called here with what the first trainer tells. Raise ConfigError or RunError when the
    cluster cannot be reached or has no place, and what ended the trainers otherwise.
    """
    settings = config.cluster
    require_work(settings.trainers, config.optimization)
    require_no_launcher()
    # What this machine knows of the run is told before a cluster is asked for; the first trainer looks on its own.
    check_run(config.run, describe_settings(config), config.resume)
    # Ray Train would move its workers to a folder of its own, away from what relative paths mean.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    folder = os.getcwd()
    with ExitStack() as stack:
        storage = settings.storage or stack.enter_context(tempfile.TemporaryDirectory(prefix="comity-ray-"))
        stack.enter_context(reach_cluster(settings))
        group = stack.enter_context(reserve_places(settings, config.process_timeout_seconds))
        staff = stack.enter_context(start_staff(config, folder, parts, group))
        journal = start_journal()
        callbacks: dict[str, Callable[..., None]] = {"step": on_step or _ignore, "progress": on_progress or _ignore}
        task = Task(config, folder, staff, journal, on_progress is not None)
        problem: Exception | None = None
        try:
            follow(journal, callbacks, lambda: _fit(task, storage))
        except RunError as error:
            problem = error
        # An error of the user is the reason for whatever followed from it.
        problem = ray.get(journal.find_failure.remote()) or problem
        if problem is not None:
            raise problem


def _fit(task: Task, storage: str) -> None:
    settings = task.config.cluster
    resources = {"CPU": settings.trainer_cpus} | ({"GPU": settings.trainer_gpus} if settings.trainer_gpus else {})
    trainer = TorchTrainer(
        run_trainer,
        train_loop_config={"task": task},
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.trainers,
            use_gpu=settings.trainer_gpus > 0,
            resources_per_worker=resources,
            placement_strategy=settings.placement,
        ),
        torch_config=TorchConfig(timeout_s=task.config.process_timeout_seconds),
        run_config=ray.train.RunConfig(
            name="comity",
            storage_path=str(Path(storage).absolute()),
            failure_config=ray.train.FailureConfig(max_failures=settings.restarts),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise RunError(
            f"the trainers failed more often than cluster.restarts {settings.restarts} allows ({lines[-1].strip()}): "
            "see why, then continue with --resume"
        ) from error


def run_trainer(given: dict[str, Any]) -> None:
    """Train as one of the trainers; Ray Train calls it in each, and anew in all of them after one died.

    An error of the user ends the run without another try. The first start finds out whether the run directory may be
    used; a later one goes on from its last checkpoint.
    """
    task: Task = given["task"]
    enter_folder(task.folder, task.config)
    rank, journal = ray.train.get_context().get_world_rank(), task.journal
    attempt, claimed = ray.get(journal.begin.remote(rank))
    if rank == 0 and not claimed:
        ray.get(journal.decide.remote(_find_objection(task.config)))
    if not ray.get(journal.may_go_on.remote()):
        return
    # Only now may a directory that is there be this run's own.
    config = replace(task.config, resume=True)
    try:
        train(config, *_callbacks(task, rank), crew=_join_crew(task, attempt))
    except ProcessLostError:
        raise
    except (ComityError, OSError) as error:
        ray.get(journal.fail.remote(error))
        if torch.distributed.is_initialized():
            # This process lives on for Ray; the others must see that it has left, and not wait for it.
            torch.distributed.destroy_process_group()


def _find_objection(config: TrainConfig) -> ComityError | OSError | None:
    try:
        check_run(config.run, describe_settings(config), config.resume)
    except (ComityError, OSError) as error:
        return error
    return None


def _join_crew(task: Task, attempt: int) -> Crew:
    limit = float(task.config.process_timeout_seconds)
    speakers = RolloutPool(task.staff.rollout, limit, attempt)
    judges = JudgePool(task.staff.judges, limit, task.staff.facts)

    def prepare(optimizer: PolicyOptimizer, step: int, version: int) -> StepCrew:
        responder, policy = speakers.seat(optimizer, step, version)
        return StepCrew(responder, judges.judge_as(policy))

    return Crew(prepare, judges)


def _callbacks(task: Task, rank: int) -> tuple[OnStep | None, OnProgress | None]:
    if rank != 0:
        return None, None
    tell = task.journal.tell
    on_progress: OnProgress | None = (lambda states: tell.remote("progress", states)) if task.shows_progress else None
    return lambda step, metrics: ray.get(tell.remote("step", step, metrics)), on_progress


def _ignore(*_: object) -> None:
    pass
