"""Play and judge the dialogues of one step, now or while the policy learns."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

from comity.judges.panel import Judges
from comity.negotiation.lockstep import Progress, play
from comity.negotiation.protocol import start
from comity.scenarios.steps import TrainingRows, draw_step
from comity.training.clock import Clock
from comity.training.distributed import share_of
from comity.training.opponent import seat_players
from comity.training.serving import hand_over, play_at_host
from comity.training.session import Played, Session
from comity.training.sharding import whole_base
from comity.types import Negotiation


def prepare_play(session: Session, step: int, version: int, on_progress: Progress | None) -> Callable[[], Played]:
    """Hand the policy over as it is now, and return what plays and judges this process's share of a step.

    What is returned may run while the policy learns. `version` counts the steps that the policy has taken.
    """
    play_states, judges = _prepare_speakers(session, step, version)

    def watch(states: Sequence[Negotiation]) -> None:
        session.plays.check()
        if on_progress is not None:
            on_progress(states)

    def play_and_judge() -> Played:
        clock = Clock()
        # A crew has models of its own, and the policy may learn meanwhile.
        with whole_base(session.model) if session.crew is None else nullcontext():
            negotiations = play_states(_start_share(session, step), clock, watch)
            with clock.measure("judge"):
                judged = judges.judge(negotiations, session.config.optimization.agreement_gate)
        return judged, clock

    return play_and_judge


PlayStates = Callable[[Sequence[Negotiation], Clock, Progress], list[Negotiation]]


def _prepare_speakers(session: Session, step: int, version: int) -> tuple[PlayStates, Judges]:
    config, host, judges = session.config, session.host, session.panel
    # The step enters every request's seed: a scenario that comes again is played anew.
    seed = config.seed * 1_000_003 + step
    if host is not None:
        speakers = hand_over(host, session.model, session.optimizer, config, step)

        def play_there(states: Sequence[Negotiation], clock: Clock, on_progress: Progress) -> list[Negotiation]:
            judge = clock.wrap("judge", judges.agreement)
            with clock.measure("rollout"):
                played, figures = play_at_host(host, speakers, states, judge, config, seed, on_progress)
            clock.note(figures)
            return played

        return play_there, judges
    if session.crew is not None:
        crew = session.crew.prepare(session.optimizer, step, version)
        responder, judges = crew.responder, crew.judges
    else:
        responder = seat_players(session.engine, session.optimizer, step, version)

    def play_here(states: Sequence[Negotiation], clock: Clock, on_progress: Progress) -> list[Negotiation]:
        return play(
            states,
            config.negotiation,
            clock.wrap("rollout", responder),
            clock.wrap("judge", judges.agreement),
            seed=seed,
            always_complete=not config.optimization.agreement_gate,
            on_progress=on_progress,
        )

    return play_here, judges


def _start_share(session: Session, step: int) -> list[Negotiation]:
    size = session.config.optimization.group_size
    rows = TrainingRows(session.dilemmas, session.pairs, session.questions)
    scenarios = draw_step(session.config, rows, step)
    states = [start(scenario, sample) for scenario in scenarios for sample in range(size)]
    return states[share_of(len(states), session.processes)]
