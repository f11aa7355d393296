"""The replies and verdicts of one dialogue, counted by playing the protocol itself with texts of a given length."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from comity.config import NegotiationConfig, TrainConfig
from comity.negotiation.protocol import advance, is_solo, pending, start
from comity.prompts import fill
from comity.scenarios.load import draw_scenarios, make_scenario
from comity.scenarios.steps import count_questions, load_training_rows
from comity.types import Check, Completion, Message, Request, RoundEnding, Scenario, Target

CHARACTERS_PER_TOKEN = 4.2
"""Of the shipped dilemmas and prompts in English, measured with the tokenizer of SmolLM2."""
MESSAGE_TOKENS = 5
"""What a chat template puts around each message."""
SAMPLED_SCENARIOS = 16
"""How many scenarios a mean is taken over."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One text of the policy: tokens of its prompt, of those that all replies of its kind begin with, and new ones.

    `longest_tokens` are the most new ones that the settings allow.
    """

    target: Target
    prompt_tokens: float
    shared_tokens: float
    new_tokens: float
    longest_tokens: float


@dataclass(frozen=True, slots=True)
class Workload:
    """One dialogue: its replies in order, and the prompts' tokens of each verdict."""

    replies: tuple[Reply, ...]
    agreement_tokens: tuple[float, ...]
    agency_tokens: tuple[float, ...]

    @property
    def new_tokens(self) -> float:
        """Return the tokens that the policy writes."""
        return sum(reply.new_tokens for reply in self.replies)

    @property
    def prompt_tokens(self) -> float:
        """Return the tokens of all prompts."""
        return sum(reply.prompt_tokens for reply in self.replies)


def split_step(config: TrainConfig) -> tuple[TrainConfig, ...]:
    """Return settings for the negotiations of a step and settings for the questions that are mixed in."""
    settings = config.optimization
    asked = count_questions(settings.scenarios_per_step, config.question_share)
    if not asked:
        return (config,)
    told = settings.scenarios_per_step - asked
    alone = dataclasses.replace(
        config, question_share=0.0, solo=True, optimization=dataclasses.replace(settings, scenarios_per_step=asked)
    )
    if not told:
        return (alone,)
    negotiated = dataclasses.replace(
        config, question_share=0.0, questions="none",
        optimization=dataclasses.replace(settings, scenarios_per_step=told),
    )  # fmt: skip
    return negotiated, alone


def longest_workload(config: TrainConfig) -> Workload:
    """Return the longest dialogue that the settings allow: the longest texts, all rounds, an agreement in the last.

    The settings are of one kind of scenario, see `split_step`.
    """
    rows = load_training_rows(config)
    dilemma = max(rows.dilemmas, key=lambda row: len(row["dilemma"]))
    pair = max(rows.pairs, key=lambda row: len(row["persona_a"]) + len(row["persona_b"]))
    return play_scripted(make_scenario(dilemma, pair, False, config.solo), config.negotiation, 10**9, 1.0)


def mean_workload(config: TrainConfig, rounds: int, share: float) -> Workload:
    """Return the mean dialogue over some scenarios, if sides agree after `rounds` rounds (or their limit comes first).

    `share` is the length of a reply as a share of the longest. The settings are of one kind of scenario.
    """
    rows = load_training_rows(config)
    scenarios = draw_scenarios(rows.dilemmas, rows.pairs, 0, SAMPLED_SCENARIOS, config.seed, config.solo)
    played = [play_scripted(scenario, config.negotiation, rounds, share) for scenario in scenarios]
    return Workload(
        replies=tuple(_mean_reply(column) for column in zip(*(item.replies for item in played), strict=True)),
        agreement_tokens=_mean_columns([item.agreement_tokens for item in played]),
        agency_tokens=_mean_columns([item.agency_tokens for item in played]),
    )


def play_scripted(scenario: Scenario, rules: NegotiationConfig, rounds: int, share: float) -> Workload:
    """Play one dialogue whose replies take `share` of their longest and whose judge agrees after `rounds` checks.

    The last check agrees in any case, so a joint answer is always written.
    """
    state = start(scenario)
    last = rules.rounds if rules.limit_unit == "rounds" else (rules.rounds + 1) // 2
    replies: list[Reply] = []
    checks: list[float] = []
    while (awaited := pending(state, rules)) is not None:
        if isinstance(awaited, Request):
            tokens = max(1.0, share * awaited.sampling.max_tokens)
            replies.append(_count(awaited, tokens, scenario))
            state = advance(state, Completion(_text(tokens)), rules)
            continue
        checks.append(count_tokens([{"role": "user", "content": _agreement_prompt(awaited)}]))
        state = advance(state, Check(0, len(checks) >= min(rounds, last)), rules)
    assert state.completion is not None
    answer = fill("agency", dilemma=scenario.dilemma, answer=state.completion.text)
    return Workload(tuple(replies), tuple(checks), (count_tokens([{"role": "user", "content": answer}]),))


def count_tokens(messages: Sequence[Message]) -> float:
    """Return about how many tokens a chat has, with the opening of the answer."""
    characters = sum(len(message["content"]) for message in messages)
    return characters / CHARACTERS_PER_TOKEN + MESSAGE_TOKENS * (len(messages) + 1)


def _count(request: Request, new_tokens: float, scenario: Scenario) -> Reply:
    # Messages of one seat begin with the same system prompt and dilemma, whatever has been said; joint answers share
    # them across the group until the dialogue begins.
    if request.target == "summary" or is_solo(scenario):
        quoted = scenario.dilemma + "".join(persona.objective for persona in scenario.personas)
        shared: list[Message] = [request.messages[0], {"role": "user", "content": quoted}]
    else:
        shared = [request.messages[0], {"role": "user", "content": fill("dilemma", dilemma=scenario.dilemma)}]
    prompt = count_tokens(request.messages)
    begun = min(prompt - 1, count_tokens(shared) - MESSAGE_TOKENS)
    return Reply(request.target, prompt, begun, new_tokens, request.sampling.max_tokens)


def _text(tokens: float) -> str:
    size = int(tokens * CHARACTERS_PER_TOKEN)
    return ("word " * (size // 5 + 1))[:size]


def _agreement_prompt(ending: RoundEnding) -> str:
    return fill(
        "agreement",
        dilemma=ending.dilemma,
        persona_a=ending.persona_a,
        persona_b=ending.persona_b,
        message_a=ending.message_a,
        message_b=ending.message_b,
    )


def _mean_reply(column: Sequence[Reply]) -> Reply:
    count = len(column)
    return Reply(
        column[0].target,
        sum(reply.prompt_tokens for reply in column) / count,
        sum(reply.shared_tokens for reply in column) / count,
        sum(reply.new_tokens for reply in column) / count,
        max(reply.longest_tokens for reply in column),
    )


def _mean_columns(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(sum(column) / len(column) for column in zip(*rows, strict=True))
