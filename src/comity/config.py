"""Settings: frozen dataclasses, one per command, from a TOML file plus `--key value` overrides."""

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from comity.errors import ConfigError
from comity.types import Sampling, Split

Settings = TypeVar("Settings")


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
        _at_least(self, "negotiation.", rounds=1, window=0)
        for name, sampling in (("dialogue", self.dialogue), ("completion", self.completion)):
            prefix = f"negotiation.{name}."
            _at_least(sampling, prefix, max_tokens=1, temperature=0)
            if not 0 < sampling.top_p <= 1:
                raise ConfigError(f"{prefix}top_p is {sampling.top_p}: choose a number above 0 and at most 1")


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
        _at_least(self, "model.", lora_rank=1, lora_alpha=1)


@dataclass(frozen=True)
class JudgeConfig:
    """Who judges: `comity/embedded` is the shipped reward head; any other name is a local model given prompts."""

    agreement: str = "comity/embedded"
    agency: str = "comity/embedded"
    heldout: bool = True
    """Let the second pair of heads, never trained against, score the same dialogues."""
    copy_limit: float = 0.8
    """A message or answer whose share of copied 4-grams is above this is not an agreement and scores 0."""

    def __post_init__(self) -> None:
        if not 0 < self.copy_limit <= 1:
            raise ConfigError(f"judges.copy_limit is {self.copy_limit}: choose a number above 0 and at most 1")


@dataclass(frozen=True)
class OptimizationConfig:
    """GRPO (Shao et al. 2024) with DAPO token normalisation (Yu et al. 2025) and no KL term by default."""

    learning_rate: float = 5e-6
    steps: int = 100
    scenarios_per_step: int = 2
    group_size: int = 8
    epochs_per_step: int = 1
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.28
    importance_cap: float = 2.0
    """Truncation of the importance weight that corrects engine/trainer mismatch; 0 switches the weight off."""
    kl_coefficient: float = 0.0
    advantage_scale: Literal["group", "none"] = "group"
    seats: Literal["policy", "both"] = "policy"
    tokens: Literal["dialogue", "completion", "both"] = "dialogue"
    micro_batch_tokens: int = 4096
    """Most padded tokens in one forward and backward pass."""

    def __post_init__(self) -> None:
        _at_least(
            self, "optimization.", learning_rate=0, steps=1, scenarios_per_step=1, group_size=2, epochs_per_step=1,
            warmup_steps=0, micro_batch_tokens=64, clip_low=0, clip_high=0, importance_cap=0, kl_coefficient=0,
            weight_decay=0, max_grad_norm=0,
        )  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Train a policy to negotiate."""

    run: Path = Path("runs/train")
    """The run directory."""
    seed: int = 0
    dilemmas: str = "shipped"
    """`shipped` or a JSONL file with rows id, tier, domain, dilemma, split."""
    personas: str = "shipped"
    """`shipped` or a JSONL file with rows id, tension, persona_a, persona_b."""
    solo: bool = False
    """One seat answers alone (the single-agent baseline)."""
    save_every: int = 5
    keep_checkpoints: int = 2
    threads: int = 0
    """CPU threads; 0 lets the libraries choose."""
    trackers: tuple[str, ...] = ()
    """Besides metrics.jsonl: tensorboard, trackio, wandb."""
    store_tokens: bool = False
    """Write every sampled token with its log-probability into the negotiation files, for the viewer."""
    resume: bool = False
    """Continue the run directory from its last checkpoint."""
    model: ModelConfig = field(default_factory=ModelConfig)
    negotiation: NegotiationConfig = field(default_factory=NegotiationConfig)
    judges: JudgeConfig = field(default_factory=JudgeConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)

    def __post_init__(self) -> None:
        _at_least(self, "", seed=0, save_every=1, keep_checkpoints=1, threads=0)
        for tracker in self.trackers:
            if tracker not in ("tensorboard", "trackio", "wandb"):
                raise ConfigError(f"trackers has {tracker!r}: choose among tensorboard, trackio, wandb")


@dataclass(frozen=True)
class EvaluateConfig:
    """Compare two checkpoints of one model on held-out scenarios, paired."""

    before: str = "none"
    """The first adapter: none, warm-start or a PEFT folder."""
    after: str = "warm-start"
    """The second adapter: none, warm-start or a PEFT folder."""
    out: Path = Path("runs/evaluation")
    split: Split = "test"
    scenarios: int = 64
    samples: int = 2
    """Dialogues per scenario, each with its own seed."""
    seed: int = 1
    dilemmas: str = "shipped"
    personas: str = "shipped"
    threads: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    negotiation: NegotiationConfig = field(default_factory=NegotiationConfig)
    judges: JudgeConfig = field(default_factory=JudgeConfig)

    def __post_init__(self) -> None:
        _at_least(self, "", scenarios=1, samples=1, seed=0, threads=0)


@dataclass(frozen=True)
class DemoConfig:
    """Train, compare before with after on held-out scenarios, and write the report."""

    run: Path = Path("runs/demo")
    """The run directory; an unfinished one is continued."""
    split: Split = "test"
    scenarios: int = 64
    """Held-out scenarios of the comparison."""
    samples: int = 2
    """Dialogues per held-out scenario and side, each with its own seed."""
    evaluation_seed: int = 1
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _at_least(self, "", scenarios=1, samples=1, evaluation_seed=0)


def load_config(kind: type[Settings], path: Path | None, overrides: dict[str, Any] | None = None) -> Settings:
    """Build settings from a TOML file and dotted overrides; raise ConfigError with the key, the value and the mend."""
    values: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"--config {path}: no such file; give a TOML file such as configs/demo.toml")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {path} is not valid TOML ({error}): mend that place") from error
    for key, value in (overrides or {}).items():
        _put(values, key, value)
    return build(kind, values)


def build(kind: type[Settings], values: dict[str, Any], prefix: str = "") -> Settings:
    """Turn nested plain values into a settings dataclass, checking every key and type."""
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    names = [f.name for f in fields]
    defaults = {f.name: f.default_factory for f in fields if f.default_factory is not dataclasses.MISSING}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(names)}"
            raise ConfigError(f"unknown setting {prefix}{key} = {value!r}: {hint}")
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            # A table that names some settings leaves the others at this table's own defaults.
            value = to_plain(defaults[key]()) | value
        arguments[key] = _convert(value, hints[key], prefix + key)
    return kind(**arguments)


def to_plain(settings: Any) -> dict[str, Any]:
    """Return settings as nested plain values that `build` reads back."""
    plain: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            value = to_plain(value)
        elif isinstance(value, Path):
            value = str(value)
        elif isinstance(value, tuple):
            value = list(value)
        plain[item.name] = value
    return plain


def _convert(value: Any, hint: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{name} = {value!r}: expected a table [{name}] of settings")
        return build(typing.cast(type, hint), value, name + ".")
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _convert_choice(value, typing.get_args(hint), name)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ConfigError(f"{name} = {value!r}: expected a list of words")
        return tuple(str(item).strip() for item in items if str(item).strip())
    if origin in (types.UnionType, typing.Union):
        return None if value in (None, "none") else _convert(value, typing.get_args(hint)[0], name)
    return _convert_scalar(value, hint, name)


def _convert_choice(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    for choice in choices:
        if (value == choice and type(value) is type(choice)) or value == str(choice):
            return choice
    raise ConfigError(f"{name} = {value!r}: choose among {', '.join(map(str, choices))}")


def _convert_scalar(value: Any, hint: Any, name: str) -> Any:
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}[hint]
    try:
        if hint is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if (hint is int and isinstance(value, float)) or (hint in (int, float) and isinstance(value, bool)):
            raise ValueError
        if hint in (str, Path) and not isinstance(value, str | Path):
            raise ValueError
        return hint(value)
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{name} = {value!r}: expected {wanted}") from None


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *tables, last = dotted.replace("-", "_").split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--{dotted} {value}: {table} is a single setting, not a table")
    values[last] = value


def _at_least(settings: Any, prefix: str, **minima: float) -> None:
    for name, minimum in minima.items():
        value = getattr(settings, name)
        if not value >= minimum:
            raise ConfigError(f"{prefix}{name} is {value}: choose {minimum} or more")
