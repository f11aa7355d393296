"""Who speaks in a training step: the policy, and in seat 1 the opponent that the settings name."""

from collections.abc import Sequence

from comity.engines.local import LocalEngine
from comity.engines.seating import Player, route_seats
from comity.training.policy import PolicyOptimizer
from comity.types import Completion, Request, Responder


def seat_players(engine: LocalEngine, optimizer: PolicyOptimizer, step: int) -> Responder:
    """Return the responder of one step; `step` counts from 1.

    `copy`: the policy of this step speaks for both, as its weights change only after all dialogues. `base`: seat 1 is
    the model without its adapter. `lagged`: seat 1 is the policy as it was before the last step whose number, counted
    from 0, is a multiple of `opponent_lag`.
    """
    settings = optimizer.settings
    if settings.opponent == "copy":
        return engine
    if settings.opponent == "base":
        return route_seats(engine, Player(engine, None))
    if (step - 1) % settings.opponent_lag == 0:
        optimizer.renew_lagged()

    def answer_lagged(requests: Sequence[Request]) -> list[Completion]:
        with optimizer.lagged_policy():
            return engine(requests)

    return route_seats(engine, answer_lagged)
