"""Every record that crosses a module border.

Records are frozen dataclasses over the standard library and numpy: they can be pickled, sent to another machine,
resumed from disk and handed to a browser.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Message = dict[str, str]
"""One chat message, `{"role": "system" | "user" | "assistant", "content": ...}`."""

Tier = Literal["professional", "interpersonal", "everyday"]
Split = Literal["train", "dev", "test"]
Target = Literal[
    "seat_0", "seat_1", "summary", "agreement", "agency", "satisfaction", "preference", "text",
]  # fmt: skip
Ending = Literal["agreed", "no_agreement", "answered", "failed"]
Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class Persona:
    """An objective that one seat holds for a whole negotiation."""

    name: str
    objective: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """A dilemma with the personas of the seats: one persona means a single-agent answer.

    `tier=None` for questions and cases that belong to none.
    """

    id: str
    dilemma: str
    tier: Tier | None
    personas: tuple[Persona, ...]
    split: Split
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; `temperature=0` is greedy."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Request:
    """One call for text: what to answer, with which sampling and seed."""

    target: Target
    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated text with the exact tokens that were sampled.

    `prompt_ids` (P,) and `token_ids` (C,) are int32; `token_ids` includes the stop token when one was sampled.
    `logprobs` (C,) are float32 natural logarithms of the temperature-scaled policy over the whole vocabulary, before
    top-p. They are empty for replies that no local model sampled (a script, a human, a server).
    """

    text: str
    finish: Finish = "stop"
    prompt_ids: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    token_ids: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    logprobs: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    policy_version: int = 0


Responder = Callable[[Sequence[Request]], Sequence[Completion]]
"""Anything that answers requests in order: an engine, a server, a script, a human."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of one seat."""

    seat: int
    completion: Completion


@dataclass(frozen=True, slots=True)
class Check:
    """The agreement judge's word after one round; `agreed=None` when the judge failed or answered nonsense."""

    round: int
    agreed: bool | None
    reason: str = ""
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Negotiation:
    """The state of one dialogue; `ending=None` while it is still going on.

    `sample` numbers the rollouts of one scenario (the place in its group). `completion` is the joint answer. A solo
    answer ends `answered`; a reply that never came ends the dialogue `failed`, which is unscored.
    """

    scenario: Scenario
    sample: int = 0
    turns: tuple[Turn, ...] = ()
    checks: tuple[Check, ...] = ()
    ending: Ending | None = None
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class RoundEnding:
    """What the agreement judge reads: the query and both latest messages."""

    dilemma: str
    persona_a: str
    persona_b: str
    message_a: str
    message_b: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the Collective Agency judge reads: the dilemma and one answer to it."""

    dilemma: str
    answer: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judgement; `score=None` means unscored, which is not zero.

    `score` is 0 to 5 for Collective Agency; for agreement it is the probability of YES and `agreed` the decision.
    `uncertainty` is one standard deviation of the score where the judge knows it.
    """

    judge: str
    template_hash: str
    score: float | None
    text: str = ""
    agreed: bool | None = None
    uncertainty: float | None = None


AgreementJudge = Callable[[Sequence[RoundEnding]], Sequence[Verdict]]
AgencyJudge = Callable[[Sequence[Answer]], Sequence[Verdict]]


@dataclass(frozen=True, slots=True)
class Stake:
    """What the satisfaction judge reads: the dilemma, the goal of one side alone, and the joint answer."""

    dilemma: str
    objective: str
    answer: str


SatisfactionJudge = Callable[[Sequence[Stake]], Sequence[Verdict]]
"""Says from 0 to 5 how far an answer gives one side what it wants; the other side's goal is not shown."""


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """What the preference judge reads: the dilemma and two answers to it, in the order in which they are shown."""

    dilemma: str
    first: str
    second: str


Choice = Literal["first", "second", "tie"]


@dataclass(frozen=True, slots=True)
class Preference:
    """Which of two answers a judge prefers; `choice=None` means unscored, which is not a tie."""

    judge: str
    template_hash: str
    choice: Choice | None
    text: str = ""


PreferenceJudge = Callable[[Sequence[AnswerPair]], Sequence[Preference]]


@dataclass(frozen=True, slots=True)
class Judged:
    """An ended negotiation with the verdicts on its joint answer, the training judge's first.

    `reward=None` when the judge could not score it; without agreement it is 0.
    `heldout_agreed` and `heldout_score` come from a judge that never trains anything.
    """

    negotiation: Negotiation
    verdicts: tuple[Verdict, ...]
    reward: float | None
    heldout_agreed: bool | None = None
    heldout_score: float | None = None


@dataclass(frozen=True, slots=True)
class TurnSample:
    """One trained turn with its own prompt; all turns of a rollout share its advantage.

    `token_ids` (T,), `loss_mask` (T,) is true on sampled tokens that carry loss, `logprobs` (T,) is 0 outside the mask.
    `temperature` is the one the tokens were sampled with; probabilities are compared at it.
    """

    token_ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    logprobs: NDArray[np.float32]
    advantage: float
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its confidence interval over `n` scored units; `n_unscored` were left out.

    `mean` is None without any scored unit; `low` and `high` are None with fewer than two independent clusters.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    n_unscored: int = 0
