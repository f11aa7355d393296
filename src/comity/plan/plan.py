"""Join everything that a run will need into one plan."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from comity.access.prices import find_price, load_prices
from comity.config import ModelConfig, TrainConfig
from comity.errors import ConfigError
from comity.plan.architectures import Architecture, find_architecture
from comity.plan.devices import Device
from comity.plan.judge_models import EMBEDDED_JUDGE
from comity.plan.memory import Memory, estimate_memory, join_memories, kv_bytes_per_token
from comity.plan.speed import Seconds, estimate_seconds
from comity.plan.workload import Workload, longest_workload, mean_workload, split_step

VERDICT_TOKENS = 60
"""A verdict and a short reason."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is assumed of a typical dialogue; None takes the defaults."""

    rounds: int | None = None
    """Rounds until agreement; the paper's trained models need about two."""
    reply_share: float = 0.6
    """Length of a reply as a share of the longest."""

    def __post_init__(self) -> None:
        if self.rounds is not None and self.rounds < 1:
            raise ConfigError(f"--rounds is {self.rounds}: choose 1 or more")
        if not 0 < self.reply_share <= 1:
            raise ConfigError(f"--reply-share is {self.reply_share}: choose a number above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of all processes, if every dialogue is as the workload says."""

    prompt_tokens: float
    new_tokens: float
    judge_calls: tuple[int, int]
    """Of the agreement and of the agency judge."""
    judge_tokens: tuple[float, float]
    """In the prompts of either judge."""
    judge_dollars: float | None
    """Of all judges behind an address; None when one of them has no known price."""
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run needs: on each device, in a typical step and in the longest."""

    config: TrainConfig
    architecture: Architecture
    device: Device
    processes: int
    adapter_parameters: int
    kv_bytes_per_token: int
    memory: Memory
    typical: StepPlan
    longest: StepPlan

    @property
    def fits(self) -> bool:
        """Tell whether the peak is within the device's memory."""
        return self.memory.peak <= self.device.memory_gb * 1e9


def make_plan(config: TrainConfig, device: Device, processes: int, expectation: Expectation) -> Plan:
    """Return the plan of a run on `processes` devices of one kind; raise ComityError for what cannot be planned."""
    dialogues = count_dialogues(config)
    if not 1 <= processes <= dialogues:
        raise ConfigError(f"--devices is {processes}: choose 1 to {dialogues}, the dialogues of a step")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, lora_rank=adapter_rank(config.model)))
    architecture = find_architecture(config.model.name)
    rounds = expectation.rounds or min(2, config.negotiation.rounds)
    shares = share_dialogues(config, processes)
    typical = [
        plan_step(architecture, part, mean_workload(part, rounds, expectation.reply_share), device, rows)
        for part, rows in shares
    ]
    longest = [
        plan_step(architecture, part, longest_workload(part), device, rows, config.judges.reply_tokens)
        for part, rows in shares
    ]
    return Plan(
        config=config,
        architecture=architecture,
        device=device,
        processes=processes,
        adapter_parameters=architecture.adapter_parameters(config.model.lora_rank),
        kv_bytes_per_token=kv_bytes_per_token(architecture, config.model.dtype),
        memory=plan_memory(architecture, config, device, processes),
        typical=add_steps(typical),
        longest=add_steps(longest),
    )


def share_dialogues(config: TrainConfig, processes: int) -> list[tuple[TrainConfig, tuple[int, int]]]:
    """Return for each kind of scenario in a step how many dialogues one device writes, and how many it learns from.

    Negotiations come first in a step: the device counted is the first, which has the most of them.
    """
    writers = len(config.rollouts.servers) or (config.cluster.workers if config.cluster.kind == "ray" else processes)
    parts = split_step(config)
    total = sum(map(count_dialogues, parts))
    left_to_write, left_to_learn = -(-total // writers), -(-total // processes)
    shares = []
    for part in parts:
        rows = min(count_dialogues(part), left_to_write), min(count_dialogues(part), left_to_learn)
        left_to_write, left_to_learn = left_to_write - rows[0], left_to_learn - rows[1]
        shares.append((part, rows))
    return shares


def count_dialogues(config: TrainConfig) -> int:
    """Return the dialogues of a step."""
    return config.optimization.scenarios_per_step * config.optimization.group_size


def plan_memory(architecture: Architecture, config: TrainConfig, device: Device, processes: int) -> Memory:
    """Return the memory of each process for the longest dialogues of every kind of scenario."""
    most = -(-count_dialogues(config) // processes)
    return join_memories(
        [
            estimate_memory(
                architecture, part, longest_workload(part), device, processes, min(count_dialogues(part), most)
            )
            for part in split_step(config)
        ]
    )


def plan_step(
    architecture: Architecture,
    config: TrainConfig,
    workload: Workload,
    device: Device,
    rows: tuple[int, int],
    verdict_tokens: int = VERDICT_TOKENS,
) -> StepPlan:
    """Return one step whose dialogues are all as the workload says; a judge writes `verdict_tokens` a call.

    `rows` as in `speed.estimate_seconds`.
    """
    dialogues = count_dialogues(config)
    return StepPlan(
        prompt_tokens=dialogues * workload.prompt_tokens,
        new_tokens=dialogues * workload.new_tokens,
        judge_calls=(dialogues * len(workload.agreement_tokens), dialogues * len(workload.agency_tokens)),
        judge_tokens=(dialogues * sum(workload.agreement_tokens), dialogues * sum(workload.agency_tokens)),
        judge_dollars=_price_dialogue(config, workload, verdict_tokens, dialogues),
        seconds=estimate_seconds(architecture, config, workload, device, rows),
    )


def add_steps(parts: Sequence[StepPlan]) -> StepPlan:
    """Return a step that has all of these kinds of scenarios."""
    dollars = [part.judge_dollars for part in parts if part.judge_dollars is not None]
    total = parts[0]
    for part in parts[1:]:
        total = StepPlan(
            prompt_tokens=total.prompt_tokens + part.prompt_tokens,
            new_tokens=total.new_tokens + part.new_tokens,
            judge_calls=(total.judge_calls[0] + part.judge_calls[0], total.judge_calls[1] + part.judge_calls[1]),
            judge_tokens=(total.judge_tokens[0] + part.judge_tokens[0], total.judge_tokens[1] + part.judge_tokens[1]),
            judge_dollars=None,
            seconds=total.seconds.plus(part.seconds),
        )
    return dataclasses.replace(total, judge_dollars=sum(dollars) if len(dollars) == len(parts) else None)


def _price_dialogue(config: TrainConfig, workload: Workload, verdict_tokens: int, dialogues: int) -> float | None:
    judges, watching = config.judges, config.judges.heldout_judge if config.judges.heldout else EMBEDDED_JUDGE
    if {judges.agreement, judges.agency, watching} == {EMBEDDED_JUDGE}:
        return 0.0
    from comity.judges.named import place_judge, split_cascade, split_names  # loads much: not for other plans

    prices, dollars = load_prices(config.access.prices), 0.0
    for setting, tokens in (
        (judges.agreement, workload.agreement_tokens), (judges.agency, workload.agency_tokens),
        # Who watches reads the last round and the joint answer.
        (watching, (*workload.agreement_tokens[-1:], *workload.agency_tokens)),
    ):  # fmt: skip
        for name in split_names(setting):
            first, other = split_cascade(name)
            asked, share = (first, 1.0) if other is None else (other, judges.ask_share)
            if place_judge(asked) != "external":
                continue
            price = find_price(prices, asked)
            if price is None:
                return None
            dollars += share * price.cost(round(sum(tokens)), verdict_tokens * len(tokens))
    return dollars * dialogues


def largest_micro_batch(plan: Plan) -> int | None:
    """Return the largest `micro_batch_tokens`, in steps of 256, whose update fits; None when none does."""
    for tokens in range(plan.config.optimization.micro_batch_tokens, 0, -256):
        settings = dataclasses.replace(plan.config.optimization, micro_batch_tokens=max(64, tokens))
        config = dataclasses.replace(plan.config, optimization=settings)
        memory = plan_memory(plan.architecture, config, plan.device, plan.processes)
        if memory.peak <= plan.device.memory_gb * 1e9:
            return settings.micro_batch_tokens
    return None


def adapter_rank(model: ModelConfig) -> int:
    """Return the rank of the adapter that the run begins with: its own, or that of a fresh one."""
    if model.adapter == "none":
        return model.lora_rank
    if model.adapter == "warm-start":
        folder = Path(str(resources.files("comity.training").joinpath("warm_start_adapter")))
    else:
        folder = Path(model.adapter)
    path = folder / "adapter_config.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"model.adapter {model.adapter!r}: {path} cannot be read; give a PEFT folder or none"
        ) from error
