"""What a generation is asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from comity.config import AccessConfig
from comity.errors import ConfigError
from comity.types import Sampling

GeneratedKind = Literal["dilemmas", "persona-pairs", "conflict-tasks"]


@dataclass(frozen=True)
class GenerateConfig:
    """Write new rows of one kind with a model."""

    kind: GeneratedKind
    count: int
    model: str
    out: Path
    seed: int = 0
    threshold: float = 0.3
    """Similarity of word 3-grams from which a new text repeats one that exists."""
    domains: tuple[str, ...] = ()
    """Subjects in place of the shipped ones."""
    sampling: Sampling = field(default_factory=lambda: Sampling(1.0, 0.95, 1024))
    access: AccessConfig = field(default_factory=AccessConfig)

    def __post_init__(self) -> None:
        if self.kind not in get_args(GeneratedKind):
            raise ConfigError(f"--kind is {self.kind!r}: choose among {', '.join(get_args(GeneratedKind))}")
        for name, least in (("count", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} is {getattr(self, name)}: choose {least} or more")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"--threshold is {self.threshold}: choose a number above 0 and at most 1")
        if self.sampling.max_tokens < 1:
            raise ConfigError(f"--max-tokens is {self.sampling.max_tokens}: choose 1 or more")
        if not self.sampling.temperature >= 0:
            raise ConfigError(f"--temperature is {self.sampling.temperature}: choose 0 or more")
        if self.domains and self.kind == "persona-pairs":
            raise ConfigError(f"--domains is {','.join(self.domains)}: persona pairs have no domain; leave it out")
