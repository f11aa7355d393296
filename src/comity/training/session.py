"""What a training run holds in memory, and who speaks and judges in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedModel

from comity.config import TrainConfig
from comity.engines.local import LocalEngine
from comity.engines.models import load_tokenizer
from comity.judges.panel import Judges, build_panel
from comity.scenarios.rows import Row
from comity.training.ahead import PlayAhead
from comity.training.clock import Clock
from comity.training.distributed import ONE_PROCESS, Processes
from comity.training.policy import PolicyOptimizer, load_policy
from comity.training.serving import Host, open_host
from comity.training.sharding import shard_base, wants_sharding
from comity.types import Judged, Responder

Played = tuple[list[Judged], Clock]
"""The judged dialogues of a step, and the seconds that they took."""


@dataclass(frozen=True)
class StepCrew:
    """Who speaks and who judges in one step, with the policy that was handed over for it."""

    responder: Responder
    judges: Judges


@dataclass(frozen=True)
class Crew:
    """Who speaks and who judges, where that happens in other processes."""

    prepare: Callable[[PolicyOptimizer, int, int], StepCrew]
    """Hands the policy over as it is now, for a step and a policy version."""
    judges: Judges
    """The judges of all steps; what judges with the policy itself is asked through a step's own."""


@dataclass(frozen=True)
class Session:
    """What a training run holds in memory: one base model for policy, opponent and embedded judges."""

    config: TrainConfig
    model: PreTrainedModel
    engine: LocalEngine
    panel: Judges
    optimizer: PolicyOptimizer
    dilemmas: Sequence[Row]
    pairs: Sequence[Row]
    processes: Processes = ONE_PROCESS
    questions: Sequence[Row] = ()
    """Open-ended questions that are mixed with the dilemmas."""
    host: Host | None = None
    """Who writes the dialogues in place of `engine`."""
    crew: Crew | None = None
    """Who speaks and judges in other processes, in place of `engine`."""
    plays: PlayAhead[Played] = field(default_factory=PlayAhead)
    """The dialogues of this step and of those that are played meanwhile."""


def open_session(
    config: TrainConfig,
    dilemmas: Sequence[Row],
    pairs: Sequence[Row],
    processes: Processes = ONE_PROCESS,
    questions: Sequence[Row] = (),
    crew: Crew | None = None,
) -> Session:
    """Load the policy, its engine, the optimiser and, without a `crew`, the judges."""
    model = load_policy(config.model)
    if wants_sharding(config.model, processes.world_size):
        shard_base(model)
    engine = LocalEngine(model, load_tokenizer(config.model.name), config.model.thinking)
    panel: Judges
    if crew is not None:
        panel = crew.judges
    else:
        panel = build_panel(config.judges, engine, config.model, config.access, str(config.run))
    optimizer = PolicyOptimizer.create(model, config.optimization)
    host = open_host(config, engine) if crew is None else None
    plays = PlayAhead[Played](config.cluster.max_staleness, config.optimization.steps)
    return Session(config, model, engine, panel, optimizer, dilemmas, pairs, processes, questions, host, crew, plays)
