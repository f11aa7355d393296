"""Settings of models, here and behind an address."""

from dataclasses import dataclass
from typing import Literal

from comity.config.ranges import at_least
from comity.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """Which model plays and learns."""

    name: str = "embedded"
    """`embedded`, a Hugging Face name or a folder."""
    adapter: str = "none"
    """The adapter to start from: none, warm-start (shipped for `embedded`) or a PEFT folder."""
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    quantization: Literal["none", "nf4"] = "none"
    lora_rank: int = 16
    lora_alpha: int = 32
    thinking: bool = False
    """Passed to chat templates that know `enable_thinking`."""

    def __post_init__(self) -> None:
        at_least(self, "model.", lora_rank=1, lora_alpha=1)


@dataclass(frozen=True)
class AccessConfig:
    """How models behind an address are asked, and what that may cost."""

    connections: int = 8
    """Most requests under way at once."""
    requests_per_minute: int = 0
    """0 sets no limit; retries count."""
    tokens_per_minute: int = 0
    """0 sets no limit; what is sent and may come back counts, by an estimate."""
    timeout_seconds: float = 120.0
    """The longest wait for one attempt."""
    retries: int = 4
    """Attempts after the first, when the provider says to come back, breaks off or takes too long."""
    backoff_seconds: float = 2.0
    """The wait before the first retry; it doubles each time, up to a minute."""
    max_spend: float | None = None
    """Dollars that a run may spend in all, over every resume (also `--max-spend`); `none` sets no cap."""
    cache: str = "runs/verdicts.sqlite"
    """The file of paid replies and of the ledger; `none` keeps them for this process alone."""
    book_under: str = ""
    """What the ledger books under and the cap counts, to share one cap among runs; empty means the run directory."""
    prices: str = "shipped"
    """`shipped`, or a TOML file whose prices go before the shipped ones."""

    def __post_init__(self) -> None:
        at_least(
            self, "access.", connections=1, requests_per_minute=0, tokens_per_minute=0, retries=0, backoff_seconds=0
        )
        if not self.timeout_seconds > 0:
            raise ConfigError(f"access.timeout_seconds is {self.timeout_seconds}: choose a number above 0")
        if self.max_spend is not None and not self.max_spend >= 0:
            raise ConfigError(f"access.max_spend is {self.max_spend}: choose 0 or more dollars, or none")
