"""Reach a Ray cluster, reserve places on it and start the workers there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from comity.cluster.pools import fetch
from comity.cluster.workers import JudgeWorker, PanelFacts, Parts, RolloutWorker
from comity.config import ClusterConfig, TrainConfig
from comity.errors import ConfigError, RunError


@dataclass(frozen=True)
class Staff:
    """The workers of a run, and what its judges are like."""

    rollout: list[ActorHandle]
    judges: list[ActorHandle]
    facts: PanelFacts


@contextmanager
def reach_cluster(settings: ClusterConfig) -> Iterator[None]:
    """Join the cluster at the address, or start Ray on this machine; leave it at the end. One that is joined stays."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": settings.address, "log_to_driver": False, "logging_level": "ERROR"}
    if settings.address == "local":
        # Nothing is reported to Ray's makers, and a busy machine gets time to start Ray's own processes.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
        # CPUs are places for Ray, not cores: on a small machine the workers of a run share the cores.
        wanted = (
            sum(bundle.get("CPU", 0) for bundle in list_bundles(settings)) + settings.trainers * settings.trainer_cpus
        )
        options |= {"num_cpus": max(os.cpu_count() or 1, int(wanted + 0.999)), "include_dashboard": False}
        if settings.object_store_mb:
            options["object_store_memory"] = settings.object_store_mb * 2**20
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises plain exceptions of many kinds here
        first = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"cluster.address {settings.address!r} cannot be reached ({first}): give local, auto or HOST:PORT of a head"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def list_bundles(settings: ClusterConfig) -> list[dict[str, float]]:
    """Return what each rollout worker needs and, last, what all judges need on one machine."""
    worker = _resources(settings.worker_cpus, settings.worker_gpus)
    judges = _resources(settings.judge_cpus * settings.judges, settings.judge_gpus * settings.judges)
    return [dict(worker) for _ in range(settings.workers)] + [judges]


@contextmanager
def reserve_places(settings: ClusterConfig, timeout_seconds: float) -> Iterator[PlacementGroup]:
    """Reserve the places of the workers and give them back; raise RunError when the cluster does not have them."""
    bundles = list_bundles(settings)
    group = placement_group(bundles, strategy=settings.placement)
    try:
        if not group.wait(timeout_seconds):
            has = {key: value for key, value in ray.cluster_resources().items() if key in ("CPU", "GPU")}
            raise RunError(
                f"the cluster has no place for {bundles} with cluster.placement {settings.placement} (it has {has} in "
                f"all) after process_timeout_seconds {timeout_seconds:g}: lower [cluster], or add machines"
            )
        yield group
    finally:
        remove_placement_group(group)


@contextmanager
def start_staff(config: TrainConfig, folder: str, parts: Parts, group: PlacementGroup) -> Iterator[Staff]:
    """Start rollout and judge workers in their places and wait until each has its model; end them afterwards."""
    settings = config.cluster
    rollout = [
        _start(RolloutWorker, config, folder, parts, _place(settings.worker_cpus, settings.worker_gpus, group, place))
        for place in range(settings.workers)
    ]
    judges = [
        _start(
            JudgeWorker,
            config,
            folder,
            parts,
            _place(settings.judge_cpus, settings.judge_gpus, group, settings.workers),
        )
        for _ in range(settings.judges)
    ]
    try:
        limit = config.process_timeout_seconds
        facts = fetch([judge.open.remote() for judge in judges], limit, "a judge")
        fetch([worker.open.remote() for worker in rollout], limit, "a rollout worker")
        yield Staff(rollout, judges, facts[0])
    finally:
        for actor in [*rollout, *judges]:
            ray.kill(actor)


def _start(kind: type[Any], config: TrainConfig, folder: str, parts: Parts, options: dict[str, Any]) -> ActorHandle:
    # A worker whose machine is gone is asked again many times before Ray knows of it: only restarts are counted.
    actor = ray.remote(kind).options(max_restarts=config.cluster.restarts, max_task_retries=-1, **options)
    return actor.remote(config, folder, parts)


def _place(cpus: float, gpus: float, group: PlacementGroup, bundle: int) -> dict[str, Any]:
    strategy = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=bundle)
    return {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": strategy}


def _resources(cpus: float, gpus: float) -> dict[str, float]:
    # A bundle without anything is refused, and a GPU of 0 would ask for a machine that has some.
    return {key: value for key, value in (("CPU", cpus), ("GPU", gpus)) if value} or {"CPU": 0.001}
