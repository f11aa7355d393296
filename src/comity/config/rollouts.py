"""Settings of those who write the dialogues of training."""

from dataclasses import dataclass
from typing import Literal

from comity.config.ranges import at_least
from comity.errors import ConfigError


@dataclass(frozen=True)
class RolloutConfig:
    """Who writes the dialogues: a model in this process or in workers, or vLLM servers of the same base model."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """What writes without `servers`: in this process, or in each rollout worker under Ray."""
    memory_share: float = 0.4
    """The part of a GPU's memory that vLLM takes in a process; the rest is for learning, or for other workers."""
    servers: tuple[str, ...] = ()
    """Addresses of vLLM servers, http://HOST:PORT each."""
    adapters: str = ""
    """The folder that the adapter is left in for the servers, which must see it under the same path; empty means
    `adapters` in the run directory."""
    connections: int = 64
    """Most requests under way at each server, or at vLLM in each process."""
    timeout_seconds: float = 120.0
    """A server that takes longer for one reply, or to load an adapter, is skipped until it answers in time again."""
    probe_seconds: float = 5.0
    """The pause between two looks at a skipped server."""
    token_seconds: float = 10.0
    """The longest that a server may take for a single token, or to say that it is well, before it is taken back."""
    patience_seconds: float = 600.0
    """How long a step waits when no server is left; then the run stops, and --resume goes on."""
    attempts: int = 4
    """Servers that a request is sent to, one after the other, before its dialogue fails."""

    def __post_init__(self) -> None:
        at_least(self, "rollouts.", connections=1, attempts=1, patience_seconds=0)
        if not 0 < self.memory_share < 1:
            raise ConfigError(f"rollouts.memory_share is {self.memory_share}: choose a number between 0 and 1")
        if self.servers and self.engine != "transformers":
            raise ConfigError(f"rollouts.engine is {self.engine}, but rollouts.servers write: leave one of them out")
        for name in ("timeout_seconds", "probe_seconds", "token_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"rollouts.{name} is {getattr(self, name)}: choose a number above 0")
        if len(set(self.servers)) < len(self.servers):
            raise ConfigError(f"rollouts.servers names a server twice: {', '.join(self.servers)}")
        for address in self.servers:
            if not address.startswith(("http://", "https://")):
                raise ConfigError(f"rollouts.servers has {address!r}: write http://HOST:PORT")
