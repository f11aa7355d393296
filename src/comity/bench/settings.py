"""What one measurement measures: the work, the peer and how often; no tensor library is loaded here."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from comity.errors import ConfigError

Measured = Literal["rollout", "update", "step", "judge"]

PEERS: dict[Measured, tuple[str, ...]] = {
    "rollout": ("transformers", "vllm"),
    "update": ("transformers", "trl"),
    "step": ("trl",),
    "judge": ("transformers",),
}
"""Who can do the same work as ours."""
DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """The work of `comity bench`: what every contender does in one repeat.

    `prompt_tokens=0` leaves the shipped scenarios as they are; another number makes each opening prompt that long.
    `peer_python` is the interpreter of the peer's process, for a library that cannot live beside our torch.
    """

    measured: Measured
    against: str | None = None
    repeats: int = 3
    dialogues: int = 32
    messages: int = 4
    tokens: int = 64
    prompt_tokens: int = 0
    group_size: int = 8
    model: str = "embedded"
    dtype: str = "bfloat16"
    seed: int = 0
    threads: int = 0
    peer_python: str = ""

    def __post_init__(self) -> None:
        peers = PEERS[self.measured]
        if self.against is not None and self.against not in peers:
            raise ConfigError(
                f"--against {self.against}: it has no {self.measured} to compare with; choose {' or '.join(peers)}"
            )
        for name, least in (
            ("repeats", 1), ("dialogues", 2), ("messages", 1), ("tokens", 1), ("prompt_tokens", 0), ("group_size", 2),
            ("seed", 0), ("threads", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} is {getattr(self, name)}: choose {least} or more")
        if self.dialogues % self.group_size:
            raise ConfigError(
                f"--dialogues {self.dialogues} is not a multiple of --group-size {self.group_size}: change one of them"
            )
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype {self.dtype!r}: choose {' or '.join(DTYPES)}")
        if self.measured == "judge" and self.model != "embedded":
            raise ConfigError(
                f"--model {self.model!r}: the embedded judges read the embedded model; leave --model away"
            )
        if self.measured == "judge" and self.messages < 2:
            raise ConfigError(f"--messages {self.messages}: a round that can be judged has 2; choose 2 or more")
        if self.peer_python and self.against is None:
            raise ConfigError("--peer-python has no effect alone: give --against too")

    def to_plain(self) -> dict[str, Any]:
        """Return the settings as plain values that `read_settings` takes back."""
        return asdict(self)


def read_settings(values: dict[str, Any]) -> BenchSettings:
    """Return the settings that `BenchSettings.to_plain` wrote."""
    return BenchSettings(**{field.name: values[field.name] for field in fields(BenchSettings)})
