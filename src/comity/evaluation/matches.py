"""What a comparison of several models plays: every model with itself, chosen pairs with each other, on every task."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from comity.config import EvaluateConfig
from comity.errors import ConfigError
from comity.negotiation.protocol import is_solo
from comity.scenarios.tasks import load_task_scenarios, take_evenly
from comity.types import Scenario

TaskKind = Literal["conflict", "conflict_alone", "open_ended", "transfer"]
Key = tuple[str, str, str, str, str, int]
"""Model, opponent, task kind, decoding, scenario and run: what names one dialogue of `dialogues.jsonl`."""


@dataclass(frozen=True, slots=True)
class Match:
    """One dialogue to play: `model` in seat 0, `opponent` in seat 1 (the same name in self-play)."""

    model: str
    opponent: str
    task: TaskKind
    decoding: str
    scenario: Scenario
    run: int

    @property
    def key(self) -> Key:
        """Return what names this dialogue."""
        return (self.model, self.opponent, self.task, self.decoding, self.scenario.id, self.run)


def row_key(row: Mapping[str, Any]) -> Key:
    """Return the key of a row of `dialogues.jsonl`."""
    return (row["model"], row["opponent"], row["task"], row["decoding"], row["scenario"], row["run"])


def parse_models(words: Sequence[str]) -> dict[str, str]:
    """Return the adapter of each model name from words `NAME=ADAPTER`; raise ConfigError for a bad one."""
    models: dict[str, str] = {}
    for word in words:
        name, equals, adapter = word.partition("=")
        if not equals or not adapter or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigError(f"models has {word!r}: write NAME=ADAPTER, the name in letters, digits and _ . -")
        if name in models:
            raise ConfigError(f"models has {name!r} twice: give each model its own name")
        models[name] = adapter
    return models


def parse_pairs(words: Sequence[str], models: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the names of each pair `A:B`; raise ConfigError for a bad one."""
    pairs: list[tuple[str, str]] = []
    for word in words:
        first, _, second = word.partition(":")
        if first not in models or second not in models:
            raise ConfigError(f"pairs has {word!r}: write A:B with names of models, here {', '.join(models)}")
        if first == second:
            raise ConfigError(f"pairs has {word!r}: every model plays itself anyway; leave it out")
        if (first, second) not in pairs:
            pairs.append((first, second))
    return pairs


def load_tasks(config: EvaluateConfig) -> dict[TaskKind, list[Scenario]]:
    """Return the scenarios of each kind of task that the settings name; raise ConfigError when nothing is named."""
    sources: tuple[tuple[TaskKind, str, str, str, int], ...] = (
        ("conflict", "tasks", config.tasks, "conflict-tasks", 2),
        ("open_ended", "open_ended", config.open_ended, "open-ended", 0),
        ("transfer", "transfer", config.transfer, "transfer", 2),
    )
    tasks: dict[TaskKind, list[Scenario]] = {}
    for kind, setting, source, shipped, seats in sources:
        if source == "none":
            continue
        # Of a case with several stakeholders the first two meet: all their pairs would be hundreds of dialogues.
        scenarios = load_task_scenarios(shipped if source == "shipped" else source, "first")
        if any(len(scenario.personas) != seats for scenario in scenarios):
            raise ConfigError(f"{setting} is {source}, which holds other tasks: give a file of {shipped}")
        tasks[kind] = take_evenly(scenarios, config.limit)
        if kind == "conflict" and config.alone:
            # The same dilemmas without the goals of two sides: one seat answers.
            tasks["conflict_alone"] = [dataclasses.replace(scenario, personas=()) for scenario in tasks[kind]]
    if not tasks and config.ifeval == "none":
        raise ConfigError("tasks, open_ended, transfer and ifeval are all none: name shipped or a file for one of them")
    return tasks


def plan_matches(config: EvaluateConfig, tasks: Mapping[TaskKind, Sequence[Scenario]]) -> list[Match]:
    """Return every dialogue of a comparison in a fixed order.

    Greedy decoding says the same every time, so it has one run. Questions without seats are answered by each model
    alone and have no cross-play.
    """
    models = parse_models(config.models)
    players = [(name, name) for name in models] + parse_pairs(config.pairs, models)
    return [
        Match(model, opponent, task, decoding, scenario, run)
        for model, opponent in players
        for decoding in dict.fromkeys(config.decoding)
        for task, scenarios in tasks.items()
        for scenario in scenarios
        if model == opponent or not is_solo(scenario)
        for run in range(config.runs if decoding == "sampled" else 1)
    ]


def batch_matches(matches: Sequence[Match], size: int) -> Iterator[list[Match]]:
    """Split matches into batches of at most `size` that share players and decoding, in their order."""
    batch: list[Match] = []
    for match in matches:
        if batch and (len(batch) == size or _players(match) != _players(batch[0])):
            yield batch
            batch = []
        batch.append(match)
    if batch:
        yield batch


def _players(match: Match) -> tuple[str, str, str]:
    return (match.model, match.opponent, match.decoding)
