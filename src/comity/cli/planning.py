"""What `comity plan` and `comity train --dry-run` print."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from comity.config import DemoConfig, TrainConfig
from comity.errors import ConfigError
from comity.plan.devices import DEVICES, Device, custom_device, find_device, match_device
from comity.plan.plan import Expectation, Plan, StepPlan, largest_micro_batch, make_plan
from comity.settings import read_settings_file

NEEDED = ("dilemmas", "personas", "questions", "model", "adapter", "judges", "launcher", "cluster")
"""The checks without which there is no plan."""
NAME_WIDTH = 34
COLUMN_WIDTH = 14


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add the device and what is expected of a dialogue."""
    names = ", ".join(device.name for device in DEVICES)
    parser.add_argument("--device", metavar="NAME", help=f"one of {names} (default: h100-80gb)")
    for option, text in (("memory-gb", "GB"), ("tflops", "dense bfloat16 TFLOP/s"), ("bandwidth", "GB/s")):
        parser.add_argument(f"--{option}", type=float, metavar="NUMBER", help=f"a device by its numbers: {text}")
    devices = "one process each (default: 1; under Ray cluster.trainers)"
    parser.add_argument("--devices", type=int, metavar="INTEGER", help=devices)
    parser.add_argument("--rounds", type=int, metavar="INTEGER", help="rounds of a typical dialogue (default: 2)")
    share = "typical length of a reply as a share of the longest (default: 0.6)"
    parser.add_argument("--reply-share", type=float, default=0.6, metavar="NUMBER", help=share)


def settings_kind(path: str) -> type[Any]:
    """Return what a file of settings is for: a demo has its training in a table of its own."""
    try:
        document = read_settings_file(Path(path))
    except ConfigError:
        return TrainConfig  # the loader of settings says what is wrong
    return DemoConfig if "train" in document else TrainConfig


def choose_device(arguments: argparse.Namespace) -> Device:
    """Return the device that the options name; raise ConfigError for an unknown name or a missing number."""
    numbers = (arguments.memory_gb, arguments.tflops, arguments.bandwidth)
    if any(number is not None for number in numbers):
        return custom_device(*(0.0 if number is None else number for number in numbers))
    return find_device(arguments.device or "h100-80gb")


def plan_run(config: TrainConfig, arguments: argparse.Namespace) -> list[str]:
    """Return the lines of a run's plan on the chosen device."""
    expectation = Expectation(arguments.rounds, arguments.reply_share)
    devices = count_trainers(config, 1) if arguments.devices is None else arguments.devices
    return describe_plan(make_plan(config, choose_device(arguments), devices, expectation))


def count_trainers(config: TrainConfig, processes: int) -> int:
    """Return how many processes learn, when a launcher starts `processes`: Ray starts its own."""
    return config.cluster.trainers if config.cluster.kind == "ray" else processes


def try_run(config: TrainConfig, processes: int, tell: Callable[[str], None]) -> None:
    """Tell the outcome of each check and the plan on this machine's device; raise ConfigError when a check failed."""
    from comity.plan.checks import check_training

    failed = []
    for check in check_training(config):
        tell(f"{'ok     ' if check.passed else 'PROBLEM'}  {check.name}: {check.detail}")
        if not check.passed:
            failed.append(check)
    if not any(check.name in NEEDED for check in failed):
        tell("")
        count = count_trainers(config, processes)
        for line in describe_plan(make_plan(config, local_device(config.model.device), count, Expectation())):
            tell(line)
    if failed:
        first = f"{failed[0].name}: {failed[0].detail}"
        raise ConfigError(first if len(failed) == 1 else f"{len(failed)} checks failed, the first is {first}")


def local_device(name: str) -> Device:
    """Return the device of this machine that `model.device` names, with its own memory."""
    import psutil
    import torch

    if name == "cpu" or not torch.cuda.is_available():
        return dataclasses.replace(find_device("cpu-2-cores"), memory_gb=psutil.virtual_memory().total / 1e9)
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    known = match_device(properties.name)
    memory = properties.total_memory / 1e9
    if known is None:
        return dataclasses.replace(find_device("h100-80gb"), name=f"{properties.name} as h100", memory_gb=memory)
    return dataclasses.replace(known, memory_gb=memory)


def describe_plan(plan: Plan) -> list[str]:
    """Return the plan in lines of fixed columns."""
    model = plan.config.model
    weights = model.dtype if model.quantization == "none" else model.quantization
    return [
        f"{model.name}: {plan.architecture.parameters:,} parameters in {weights}, adapter {plan.adapter_parameters:,} "
        f"(rank {plan.config.model.lora_rank}), KV cache {plan.kv_bytes_per_token:,} bytes a token",
        "",
        f"memory of {plan.device.name}{f', each of {plan.processes}' if plan.processes > 1 else ''}, longest dialogues",
        *_list_bytes("always", plan.memory.always),
        *_list_bytes("rollout", plan.memory.rollout),
        *_list_bytes("update", plan.memory.update),
        f"  {'peak':<{NAME_WIDTH}}{plan.memory.peak / 1e9:>{COLUMN_WIDTH}.2f} GB of {plan.device.memory_gb:.0f}"
        f"{'' if plan.fits else ': does not fit'}",
        *_list_bytes("in the machine's memory", plan.memory.beside),
        *_advise(plan),
        "",
        f"  {'a step':<{NAME_WIDTH}}{'typical':>{COLUMN_WIDTH}}{'longest':>{COLUMN_WIDTH}}",
        *_list_step(plan.typical, plan.longest),
        f"  {'dollars for the judges':<{NAME_WIDTH}}"
        + "".join(f"{_word_dollars(step.judge_dollars):>{COLUMN_WIDTH}}" for step in (plan.typical, plan.longest)),
        "",
        _sum_up(plan),
    ]


def _list_bytes(part: str, items: Mapping[str, float]) -> list[str]:
    return [
        f"  {f'{part}: {name}':<{NAME_WIDTH}}{count / 1e9:>{COLUMN_WIDTH}.2f} GB"
        for name, count in items.items()
        if count
    ]


def _advise(plan: Plan) -> list[str]:
    if plan.fits:
        return []
    tokens = largest_micro_batch(plan)
    if tokens is not None:
        return [f"  optimization.micro_batch_tokens {tokens} fits"]
    return ["  no micro-batch fits: quantise, take a smaller model or a larger device"]


def _list_step(typical: StepPlan, longest: StepPlan) -> list[str]:
    rows: list[tuple[str, float, float, int]] = [
        ("prompt tokens", typical.prompt_tokens, longest.prompt_tokens, 0),
        ("new tokens", typical.new_tokens, longest.new_tokens, 0),
        ("seconds: prefill", typical.seconds.prefill, longest.seconds.prefill, 1),
        ("seconds: decode", typical.seconds.decode, longest.seconds.decode, 1),
        ("seconds: update", typical.seconds.update, longest.seconds.update, 1),
        ("seconds: all", typical.seconds.step, longest.seconds.step, 1),
    ]
    for place, judge in enumerate(("agreement", "agency")):
        rows += [
            (f"calls of the {judge} judge", typical.judge_calls[place], longest.judge_calls[place], 0),
            ("  tokens of their prompts", typical.judge_tokens[place], longest.judge_tokens[place], 0),
        ]
    return [
        f"  {name:<{NAME_WIDTH}}{first:>{COLUMN_WIDTH},.{digits}f}{second:>{COLUMN_WIDTH},.{digits}f}"
        for name, first, second, digits in rows
    ]


def _word_dollars(dollars: float | None) -> str:
    return "no known price" if dollars is None else f"{dollars:,.4f}"


def _sum_up(plan: Plan) -> str:
    steps = plan.config.optimization.steps
    hours = f"{plan.typical.seconds.step * steps / 3600:,.1f} hours without waiting for judges"
    dollars = plan.typical.judge_dollars
    return f"{steps:,} typical steps: {hours}" + (f", {dollars * steps:,.2f} dollars for them" if dollars else "")
