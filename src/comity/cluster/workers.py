"""What rollout and judge workers do; plain classes, which Ray runs as actors.

A worker opens its model at its first call, so an error in that reaches the caller as it is, and a worker that Ray
started anew opens it again.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
import torch

from comity.access import Spend
from comity.cluster.speakers import LocalPolicy, PolicyEngine, open_policy
from comity.config import AccessConfig, TrainConfig
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.judges.named import list_judges, place_judge
from comity.judges.panel import SELF_JUDGE, Judges, build_panel
from comity.training.policy import resolve_device
from comity.training.verdicts import Counts, count_since
from comity.types import Completion, Judged, Negotiation, Request, RoundEnding, Verdict


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A policy as it was handed over: `weights` holds the reference to its adapter, nothing for the base model alone.

    The same `key` means the same weights. The reference stands in a tuple, so Ray fetches what it points to only when a
    worker asks.
    """

    key: str
    version: int
    weights: tuple[Any, ...]


OpenEngine = Callable[[TrainConfig], PolicyEngine]
OpenJudges = Callable[[TrainConfig, PolicyEngine | None], Judges]


@dataclass(frozen=True)
class Parts:
    """What workers are made of; another engine or other judges need another of these functions."""

    open_engine: OpenEngine
    open_judges: OpenJudges


class RolloutWorker:
    """Answer requests with a model of its own and the policy that comes along."""

    def __init__(self, config: TrainConfig, folder: str, parts: Parts) -> None:
        enter_folder(folder, config)
        self.config, self.parts, self.installed = config, parts, ""

    @cached_property
    def engine(self) -> PolicyEngine:
        """Return the engine, which the first call opens."""
        return self.parts.open_engine(self.config)

    def open(self) -> None:
        """Open the engine now."""
        assert self.engine

    def answer(self, requests: Sequence[Request], snapshot: Snapshot) -> list[Completion]:
        """Return one completion a request, in order."""
        self.installed = install(self.engine, snapshot, self.installed)
        return list(self.engine(requests))


@dataclass(frozen=True, slots=True)
class PanelFacts:
    """What a trainer must know about judges that it does not hold."""

    watches_answers: bool
    costs_money: bool


class JudgeWorker:
    """Hold the judges of a run; each answer comes with the rows that cascades passed on for it."""

    def __init__(self, config: TrainConfig, folder: str, parts: Parts) -> None:
        enter_folder(folder, config)
        self.config, self.parts, self.installed = config, parts, ""
        self.judges_itself = SELF_JUDGE in list_judges([config.judges.agency])

    @cached_property
    def policy(self) -> PolicyEngine | None:
        """Return the policy where it judges itself, in the engine that heads read too."""
        rollouts = replace(self.config.rollouts, engine="transformers")
        return self.parts.open_engine(replace(self.config, rollouts=rollouts)) if self.judges_itself else None

    @cached_property
    def panel(self) -> Judges:
        """Return the judges, which the first call opens."""
        return self.parts.open_judges(self.config, self.policy)

    def open(self) -> PanelFacts:
        """Open the judges now and describe them."""
        return PanelFacts(self.panel.watches_answers, self.panel.costs_money)

    def check(self, endings: Sequence[RoundEnding]) -> tuple[list[Verdict], Counts]:
        """Return whether both sides agreed at each ending."""
        before = self.panel.count_passed_on()
        verdicts = list(self.panel.agreement(endings))
        return verdicts, count_since(before, self.panel.count_passed_on())

    def judge(
        self, negotiations: Sequence[Negotiation], gated: bool, snapshot: Snapshot | None
    ) -> tuple[list[Judged], Counts]:
        """Score ended negotiations; the snapshot is the policy where it judges itself."""
        if self.policy is not None:
            if snapshot is None:
                raise ValueError("the policy judges itself, but none came along")
            self.installed = install(self.policy, snapshot, self.installed)
        before = self.panel.count_passed_on()
        judged = self.panel.judge(negotiations, gated)
        return judged, count_since(before, self.panel.count_passed_on())

    def read_spend(self) -> list[Spend]:
        """Return what the run spent on its judges so far."""
        return self.panel.read_spend()


def install(engine: PolicyEngine, snapshot: Snapshot, installed: str) -> str:
    """Let the engine speak with a snapshot unless it does already; return the key of what it speaks with."""
    if snapshot.key != installed:
        engine.install(ray.get(snapshot.weights[0]) if snapshot.weights else None, snapshot.version)
    return snapshot.key


def enter_folder(folder: str, config: TrainConfig) -> None:
    """Stand where the command was started, so that relative paths mean the same; set the number of threads."""
    if Path(folder).is_dir():
        os.chdir(folder)
    if config.threads:
        torch.set_num_threads(config.threads)


def open_judges(config: TrainConfig, policy: PolicyEngine | None) -> Judges:
    """Build the judges that the settings name, and the base of heads with the settings of the policy's model."""
    engine = policy.engine if isinstance(policy, LocalPolicy) else None
    judges, model = config.judges, config.model
    names = list_judges([judges.agreement, judges.agency, *([judges.heldout_judge] if judges.heldout else [])])
    if engine is None and any(name != SELF_JUDGE and place_judge(name) in ("embedded", "head") for name in names):
        base = load_model(model.name, model.dtype, resolve_device(model.device), model.quantization)
        engine = LocalEngine(base, load_tokenizer(model.name), model.thinking)
    access = share_limits(config.access, config.cluster.judges)
    return build_panel(judges, engine, model, access, str(config.run))


def share_limits(access: AccessConfig, workers: int) -> AccessConfig:
    """Return the limits of one of several workers, so that all of them together keep to `access`.

    A limit smaller than the number of workers leaves each 1, which is more than it says.
    """

    def share(limit: int) -> int:
        return max(limit // workers, 1) if limit else 0

    return replace(
        access,
        connections=share(access.connections),
        requests_per_minute=share(access.requests_per_minute),
        tokens_per_minute=share(access.tokens_per_minute),
    )


LOCAL = Parts(open_policy, open_judges)
