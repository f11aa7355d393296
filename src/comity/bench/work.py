"""The work of a measurement: dialogues over shipped scenarios, and their messages as rows that every contender gets."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from comity.bench.settings import BenchSettings
from comity.config import NegotiationConfig, OptimizationConfig
from comity.errors import ConfigError
from comity.negotiation.lockstep import play
from comity.negotiation.protocol import seat_messages, start
from comity.scenarios.load import draw_scenarios, load_dilemmas, load_persona_pairs
from comity.training.samples import make_sample
from comity.types import (
    Completion,
    Message,
    Negotiation,
    Request,
    RoundEnding,
    Sampling,
    Scenario,
    TurnSample,
    Verdict,
)

SAMPLING = Sampling(temperature=0.7, top_p=0.95)
"""How every contender draws tokens; the nucleus is exact."""

EncodeChat = Callable[[Sequence[Message]], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Row:
    """One message: its place, the ids of its prompt and of its tokens.

    A verdict is a row without tokens: its prompt, and how many `layers` its head reads; `message` numbers the call.
    """

    message: int
    scenario: int
    sample: int
    prompt: list[int]
    tokens: list[int]
    layers: int = 0


def negotiation_rules(settings: BenchSettings) -> NegotiationConfig:
    """Return rules under which a dialogue has exactly the messages of the settings, if nobody agrees."""
    return NegotiationConfig(
        rounds=settings.messages,
        limit_unit="messages",
        dialogue=Sampling(SAMPLING.temperature, SAMPLING.top_p, settings.tokens),
    )


def optimization_settings(settings: BenchSettings) -> OptimizationConfig:
    """Return the shipped optimisation with all messages trained.

    Advantages are reward minus mean and nothing corrects for the sampler, so that a peer can do the same update.
    """
    return OptimizationConfig(
        scenarios_per_step=settings.dialogues // settings.group_size,
        group_size=settings.group_size,
        seats="both",
        advantage_scale="none",
        importance_cap=0.0,
    )


def draw_dialogues(settings: BenchSettings, encode_chat: EncodeChat) -> list[Negotiation]:
    """Return the empty dialogues: a group of `group_size` for each scenario."""
    count = settings.dialogues // settings.group_size
    dilemmas = load_dilemmas(split="train")
    scenarios = draw_scenarios(dilemmas, load_persona_pairs(), 0, count, settings.seed)
    if settings.prompt_tokens:
        texts = [row["dilemma"] for row in dilemmas]
        scenarios = [fit_scenario(scenario, texts, settings, encode_chat) for scenario in scenarios]
    return [start(scenario, sample) for scenario in scenarios for sample in range(settings.group_size)]


def fit_scenario(
    scenario: Scenario, texts: Sequence[str], settings: BenchSettings, encode_chat: EncodeChat
) -> Scenario:
    """Return the scenario with its dilemma cut, or lengthened by other dilemmas, to the prompt's wanted tokens.

    The opening prompt gets as many words as fit. Raise ConfigError when not even one does.
    """
    words = scenario.dilemma.split()
    for text in itertools.cycle(texts):
        if len(words) >= settings.prompt_tokens:  # a word has a token at least
            break
        words += text.split()

    def with_words(count: int) -> Scenario:
        return Scenario(
            scenario.id, " ".join(words[:count]), scenario.tier, scenario.personas, scenario.split, scenario.domain
        )

    def fits(count: int) -> bool:
        messages = seat_messages(start(with_words(count)), 0, negotiation_rules(settings))
        return len(encode_chat(messages)) <= settings.prompt_tokens

    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    if low == 0:
        raise ConfigError(f"--prompt-tokens {settings.prompt_tokens}: the instructions alone take more; choose more")
    return with_words(low)


def never_agree(endings: Sequence[RoundEnding]) -> list[Verdict]:
    """Judge that no round ended in agreement, so that every dialogue has all its messages."""
    return [Verdict(judge="bench", template_hash="", score=0.0, agreed=False) for _ in endings]


def write_dialogues(
    settings: BenchSettings, tokenizer: PreTrainedTokenizerBase, encode_chat: EncodeChat
) -> list[Negotiation]:
    """Return the dialogues to their last message, written instead of sampled.

    The messages are pieces of shipped dilemmas of other splits, each of exactly the wanted tokens.
    """
    text = "\n".join(row["dilemma"] for split in ("dev", "test") for row in load_dilemmas(split=split))
    corpus = np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
    places = itertools.count(0, settings.tokens)
    ends = itertools.count(settings.tokens, settings.tokens)

    def respond(requests: Sequence[Request]) -> list[Completion]:
        pieces = [corpus.take(range(next(places), next(ends)), mode="wrap") for _ in requests]
        return [
            Completion(
                text=tokenizer.decode(ids.tolist(), skip_special_tokens=True),
                finish="length",
                prompt_ids=encode_chat(request.messages),
                token_ids=ids,
                logprobs=np.zeros(len(ids), np.float32),
            )
            for ids, request in zip(pieces, requests, strict=True)
        ]

    return play(draw_dialogues(settings, encode_chat), negotiation_rules(settings), respond, never_agree)


def collect_rows(settings: BenchSettings, played: Sequence[Negotiation]) -> list[Row]:
    """Return the messages of dialogues, first messages first, each with the ids that were sampled."""
    return [
        Row(
            message=message,
            scenario=place // settings.group_size,
            sample=negotiation.sample,
            prompt=negotiation.turns[message].completion.prompt_ids.tolist(),
            tokens=negotiation.turns[message].completion.token_ids.tolist(),
        )
        for message in range(settings.messages)
        for place, negotiation in enumerate(played)
    ]


def split_messages(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each message, as a dialogue needs one before it goes on to the next."""
    for message in sorted({row.message for row in rows}):
        yield [row for row in rows if row.message == message]


def choose_reward(sample: int) -> float:
    """Return the reward of a sample: 0 and 1 in turn, so that every message has an advantage and none is skipped."""
    return float(sample % 2)


def make_turn_samples(settings: BenchSettings, rows: Sequence[Row]) -> list[TurnSample]:
    """Return one training sample a message; its advantage is its reward minus the mean of its group."""
    mean = sum(map(choose_reward, range(settings.group_size))) / settings.group_size
    return [
        make_sample(
            Completion(
                text="",
                prompt_ids=np.asarray(row.prompt, np.int32),
                token_ids=np.asarray(row.tokens, np.int32),
                logprobs=np.zeros(len(row.tokens), np.float32),
            ),
            advantage=choose_reward(row.sample) - mean,
            temperature=SAMPLING.temperature,
        )
        for row in rows
    ]


def forbid_stopping(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the stop token one that the model has no logit for, so that no text ends early.

    Nothing is taken from the distribution: what was the stop token is drawn like any other.
    """
    vocabulary = model.config.get_text_config().vocab_size
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    missing = vocabulary - len(tokenizer)
    tokenizer.add_tokens([f"<|bench-unused-{number}|>" for number in range(max(0, missing))])
    tokenizer.add_special_tokens({"eos_token": "<|bench-stop|>"})
    assert tokenizer.eos_token_id >= vocabulary
    if model.generation_config is not None:
        model.generation_config.eos_token_id = None
