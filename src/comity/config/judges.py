"""Settings of judges."""

import re
from dataclasses import dataclass, field
from typing import Literal

from comity.config.models import AccessConfig
from comity.config.ranges import at_least
from comity.errors import ConfigError


@dataclass(frozen=True)
class JudgeConfig:
    """Who judges: `comity/embedded`, `head:PATH`, a local model (folder, `hf/NAME`), or Inspect's PROVIDER/MODEL.

    HEAD+NAME asks the head first and NAME about the rows that it is unsure of.
    """

    agreement: str = "comity/embedded"
    agency: str = "comity/embedded"
    """Besides: `self`, the policy of the moment with the judges' prompt (self-reward, in training only)."""
    satisfaction: str = "none"
    """Who says in an evaluation how far the answer gives each side what it wants: none, or a model given prompts."""
    preference: str = "none"
    """Who says in a comparison of models which of two answers is better: none for their scores, or a model."""
    combine: Literal["mean", "median", "min"] = "median"
    """How the verdicts of several judges, with commas between their names, become one."""
    heldout: bool = True
    """Let judges that are never trained against score the same dialogues."""
    heldout_judge: str = "comity/embedded"
    """Who they are, as in agency; of heads it is the second pair."""
    ask_share: float = 0.2
    """The share of a head's held-out rows that HEAD+NAME would pass on; in a run it may be another."""
    copy_limit: float = 0.8
    """A message or answer whose share of copied 4-grams is above this is not an agreement and scores 0."""
    human: str = "none"
    """Human ratings of answers that enter the reward: none, or a file of labels as the viewer exports them."""
    human_share: float = 0.25
    """The share of an answer's score that a head fitted on the human ratings gives; the judge gives the rest."""
    reply_tokens: int = 1024
    """Most tokens that a judge behind an address may write, thinking included."""
    local_scores: Literal["written", "expected"] = "written"
    """How a local model, or `self`, scores an answer: by the number that it writes, or by the mean of 0 to 5 under its
    probabilities of the first token, which suits models that rarely write in the form that is asked for."""
    temperature: float = 0.0
    """At which a judge behind an address is asked; 0 takes its likeliest words."""
    top_p: float = 1.0
    """The nucleus a judge behind an address draws from; 1 sends no such setting."""
    max_unscored_share: float = 0.5
    """A training step with a larger share of rollouts without verdict is not taken, and the run stops."""
    parted: Literal["warn", "pause", "off"] = "warn"
    """What happens when the gap between the training judge and the held-out one grows: see docs/judges.md."""
    parted_steps: int = 50
    """Most first and last steps that are compared for that: a quarter of the run so far, but 5 or more."""
    parted_errors: float = 3.0
    """Standard errors by which the gap must have grown."""

    def __post_init__(self) -> None:
        at_least(self, "judges.", reply_tokens=1, parted_steps=2, parted_errors=0, temperature=0)
        for name in ("agreement", "satisfaction", "heldout_judge"):
            if "self" in re.split("[,+]", getattr(self, name)):
                raise ConfigError(f"judges.{name} is self: only judges.agency can be the policy itself")
        if self.parted == "pause" and not self.heldout:
            raise ConfigError("judges.parted is pause, but judges.heldout is false: let a second judge watch, or warn")
        for name in ("copy_limit", "top_p"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"judges.{name} is {getattr(self, name)}: choose a number above 0 and at most 1")
        for name in ("max_unscored_share", "ask_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"judges.{name} is {getattr(self, name)}: choose a number from 0 to 1")
        if not 0 < self.human_share <= 1:
            raise ConfigError(f"judges.human_share is {self.human_share}: choose a number above 0 and at most 1")
        for name in ("agreement", "agency", "heldout_judge"):
            words = [word.strip() for word in getattr(self, name).split(",")]
            if not all(words) or len(set(words)) < len(words):
                raise ConfigError(
                    f"judges.{name} is {getattr(self, name)!r}: name a judge, such as comity/embedded, or several "
                    "different ones with commas between them"
                )


@dataclass(frozen=True)
class AskedJudges:
    """What a judge is made of that is asked outside a run, by `comity judge score`, `audit` and `attack`."""

    combine: Literal["mean", "median", "min"] = "median"
    """How the verdicts of several judges, with commas between their names, become one."""
    ask_share: float = 0.2
    """The share of a head's held-out rows that HEAD+NAME would pass on; among other rows it may be another."""
    copy_limit: float = 0.8
    """A message or answer whose share of copied 4-grams is above this is not an agreement and scores 0."""
    reply_tokens: int = 1024
    """Most tokens that a judge behind an address may write, thinking included."""
    local_scores: Literal["written", "expected"] = "written"
    """How a local model, or `self`, scores an answer: by the number that it writes, or by the mean of 0 to 5 under its
    probabilities of the first token, which suits models that rarely write in the form that is asked for."""
    temperature: float = 0.0
    """At which a judge behind an address is asked; 0 takes its likeliest words."""
    top_p: float = 1.0
    """The nucleus a judge behind an address draws from; 1 sends no such setting."""

    def __post_init__(self) -> None:
        self.to_judges()

    def to_judges(self, name: str = "comity/embedded") -> JudgeConfig:
        """Return the settings of a run that is judged by `name` alone; raise ConfigError for one out of range."""
        return JudgeConfig(
            agreement=name,
            agency=name,
            heldout=False,
            combine=self.combine,
            ask_share=self.ask_share,
            copy_limit=self.copy_limit,
            reply_tokens=self.reply_tokens,
            local_scores=self.local_scores,
            temperature=self.temperature,
            top_p=self.top_p,
        )


@dataclass(frozen=True)
class ScoreConfig:
    """Judge the rows of a file."""

    judges: AskedJudges = field(default_factory=AskedJudges)
    access: AccessConfig = field(default_factory=AccessConfig)
