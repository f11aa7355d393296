"""Workers of one kind as one responder or one panel of judges.

A batch is cut into runs of neighbours, one for each worker. Ray asks again what a worker that died still owed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, TypeVar

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from comity.access import Spend
from comity.cluster.workers import PanelFacts, Snapshot
from comity.engines.seating import route_seats
from comity.errors import ComityError, RunError
from comity.training.opponent import renew_opponent
from comity.training.policy import PolicyOptimizer
from comity.training.verdicts import Counts
from comity.types import Completion, Judged, Negotiation, Request, Responder, RoundEnding, Verdict

Row = TypeVar("Row")


def fetch(references: Sequence[Any], timeout_seconds: float, who: str) -> list[Any]:
    """Return what workers answered; raise their errors of users as they are, RunError for workers that are gone."""
    try:
        return list(ray.get(list(references), timeout=timeout_seconds))
    except RayTaskError as error:
        if isinstance(error.cause, ComityError):
            raise error.cause from None
        raise
    except GetTimeoutError:
        raise RunError(
            f"{who} did not answer within process_timeout_seconds {timeout_seconds:g}: see `ray status` for what the "
            "cluster lacks, then continue with --resume"
        ) from None
    except RayError as error:
        first = str(error).strip().splitlines()[0]
        raise RunError(
            f"{who} died more often than cluster.restarts allows ({first}): see why, then continue with --resume"
        ) from error


def ask_all(
    workers: Sequence[ActorHandle], rows: Sequence[Row], ask: Callable[[ActorHandle, Sequence[Row]], Any]
) -> list[Any]:
    """Return references to the answers to runs of neighbours, one run for each worker that gets any row."""
    count = min(len(workers), len(rows))
    return [
        ask(workers[place], rows[place * len(rows) // count : (place + 1) * len(rows) // count])
        for place in range(count)
    ]


@dataclass
class RolloutPool:
    """Rollout workers as the responder of a step; `attempt` counts the starts of the trainers."""

    workers: Sequence[ActorHandle]
    timeout_seconds: float
    attempt: int
    lagged: Snapshot | None = None

    def seat(self, optimizer: PolicyOptimizer, step: int, version: int) -> tuple[Responder, Snapshot]:
        """Hand the policy over; return who speaks in a step, see `training.opponent.seat_players`, and the policy."""
        theirs = renew_opponent(optimizer, step, version)
        current = self._publish("policy", version, optimizer.parameters)
        policy, opponent = self.speak_as(current), optimizer.settings.opponent
        if opponent == "copy":
            return policy, current
        if opponent == "base":
            return route_seats(policy, self.speak_as(Snapshot("base", theirs, ()))), current
        if self.lagged is None or self.lagged.version != theirs:
            self.lagged = self._publish("lagged", theirs, optimizer.lagged)
        return route_seats(policy, self.speak_as(self.lagged)), current

    def speak_as(self, snapshot: Snapshot) -> Responder:
        """Return a responder in which every worker speaks with one policy."""

        def respond(requests: Sequence[Request]) -> list[Completion]:
            asked = ask_all(self.workers, requests, lambda worker, rows: worker.answer.remote(rows, snapshot))
            return [item for part in fetch(asked, self.timeout_seconds, "a rollout worker") for item in part]

        return respond

    def _publish(self, name: str, version: int, weights: dict[str, Any]) -> Snapshot:
        with torch.no_grad():
            plain = {key: weight.detach().cpu().clone() for key, weight in weights.items()}
        return Snapshot(f"{name}/{self.attempt}/{version}", version, (ray.put(plain),))


@dataclass
class JudgePool:
    """Judge workers as the judges of a run; see `comity.judges.panel.Judges`."""

    workers: Sequence[ActorHandle]
    timeout_seconds: float
    facts: PanelFacts
    policy: Snapshot | None = None
    """The policy of the step, where it judges itself."""
    passed: dict[str, tuple[int, int]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)
    """Several steps may be judged at once, each in a thread."""

    def judge_as(self, policy: Snapshot) -> "JudgePool":
        """Return these judges for a step with this policy, whatever policies are handed over later."""
        return replace(self, policy=policy)

    def agreement(self, endings: Sequence[RoundEnding]) -> list[Verdict]:
        """Return for each round whether both sides agreed."""
        return self._join(ask_all(self.workers, endings, lambda worker, rows: worker.check.remote(rows)))

    def judge(self, negotiations: Sequence[Negotiation], gated: bool = True) -> list[Judged]:
        """Score ended negotiations, see `Panel.judge`."""
        return self._join(
            ask_all(self.workers, negotiations, lambda worker, rows: worker.judge.remote(rows, gated, self.policy))
        )

    @property
    def watches_answers(self) -> bool:
        """Return whether a held-out judge scores the joint answers too."""
        return self.facts.watches_answers

    @property
    def costs_money(self) -> bool:
        """Return whether a judge is behind an address."""
        return self.facts.costs_money

    def read_spend(self) -> list[Spend]:
        """Return what this run spent on its judges so far, in every worker: they share one ledger."""
        if not self.costs_money:
            return []
        found: list[Spend] = fetch([self.workers[0].read_spend.remote()], self.timeout_seconds, "a judge")[0]
        return found

    def count_passed_on(self) -> dict[str, tuple[int, int]]:
        """Return how many rows each cascade has read and passed on so far for this process, by what it judges."""
        return dict(self.passed)

    def close(self) -> None:
        """Do nothing: the workers end with the run."""

    def _join(self, references: Sequence[Any]) -> list[Any]:
        found: list[Any] = []
        counts: Counts
        for part, counts in fetch(references, self.timeout_seconds, "a judge"):
            found.extend(part)
            with self.lock:
                for name, (rows, passed) in counts.items():
                    before = self.passed.get(name, (0, 0))
                    self.passed[name] = (before[0] + rows, before[1] + passed)
        return found
