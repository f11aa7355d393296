"""Who speaks in a training step: the policy, and in seat 1 the opponent that the settings name."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from comity.engines.local import LocalEngine
from comity.engines.merging import adapters_off
from comity.engines.seating import route_seats
from comity.training.policy import PolicyOptimizer
from comity.types import Completion, Request, Responder

BASE_VERSION = 0
"""What the base model's words are stamped with: it has learned in no step."""


def renew_opponent(optimizer: PolicyOptimizer, step: int, version: int) -> int:
    """Let a lagged opponent become the policy as it is now when its time has come; return the version of seat 1.

    `step` counts from 1, `version` the steps that the policy has taken. A lagged opponent is renewed before every step
    whose number, counted from 0, is a multiple of `opponent_lag`; its version is that of the policy that it became.
    """
    settings = optimizer.settings
    if settings.opponent == "copy":
        return version
    if settings.opponent == "base":
        return BASE_VERSION
    if (step - 1) % settings.opponent_lag == 0:
        optimizer.renew_lagged(version)
    return optimizer.lagged_version


def seat_players(engine: LocalEngine, optimizer: PolicyOptimizer, step: int, version: int) -> Responder:
    """Return the responder of one step; `step` and `version` as in `renew_opponent`.

    `copy`: the policy of this step speaks for both, as its weights change only after all dialogues. `base`: seat 1 is
    the model without its adapter. `lagged`: seat 1 is the policy as it was when it was last renewed.
    """
    theirs = renew_opponent(optimizer, step, version)
    policy = _speak_as(engine, version, nullcontext)
    if optimizer.settings.opponent == "copy":
        return policy
    if optimizer.settings.opponent == "base":
        return route_seats(policy, _speak_as(engine, theirs, lambda: adapters_off(engine.model)))
    return route_seats(policy, _speak_as(engine, theirs, optimizer.lagged_policy))


def _speak_as(engine: LocalEngine, version: int, in_place: Callable[[], AbstractContextManager[None]]) -> Responder:
    def respond(requests: Sequence[Request]) -> list[Completion]:
        engine.policy_version = version
        with in_place():
            return engine(requests)

    return respond
