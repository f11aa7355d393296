"""Settings of dialogues."""

from dataclasses import dataclass, field
from typing import Literal

from comity.config.ranges import at_least
from comity.errors import ConfigError
from comity.types import Sampling


@dataclass(frozen=True)
class NegotiationConfig:
    """Rules of one dialogue (paper, section 3).

    The papers leave open whether N and the window count messages or rounds; both are settings.
    """

    rounds: int = 7
    """Most rounds (or messages, see limit_unit) before the dialogue ends without agreement."""
    limit_unit: Literal["rounds", "messages"] = "rounds"
    window: int = 2
    """How many of the latest turns (or rounds, see window_unit) a speaker sees; 0 means all."""
    window_unit: Literal["messages", "rounds"] = "messages"
    opener: Literal[0, 1] = 0
    """The seat that speaks first; seat 0 is the policy."""
    dialogue: Sampling = field(default_factory=lambda: Sampling(0.7, 0.95, 256))
    completion: Sampling = field(default_factory=lambda: Sampling(0.1, 0.95, 384))

    def __post_init__(self) -> None:
        at_least(self, "negotiation.", rounds=1, window=0)
        for name, sampling in (("dialogue", self.dialogue), ("completion", self.completion)):
            prefix = f"negotiation.{name}."
            at_least(sampling, prefix, max_tokens=1, temperature=0)
            if not 0 < sampling.top_p <= 1:
                raise ConfigError(f"{prefix}top_p is {sampling.top_p}: choose a number above 0 and at most 1")
