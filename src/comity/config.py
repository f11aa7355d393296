"""Settings: frozen dataclasses, one per command, from a TOML file plus `--key value` overrides."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from comity.errors import ConfigError
from comity.settings import build, load_config, to_plain
from comity.types import Sampling, Split

__all__ = [
    "AccessConfig", "DemoConfig", "EvaluateConfig", "JudgeConfig", "ModelConfig", "NegotiationConfig",
    "OptimizationConfig", "ScoreConfig", "StudyConfig", "TrainConfig", "build", "load_config", "to_plain",
]  # fmt: skip


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
        _at_least(
            self, "access.", connections=1, requests_per_minute=0, tokens_per_minute=0, retries=0, backoff_seconds=0
        )
        if not self.timeout_seconds > 0:
            raise ConfigError(f"access.timeout_seconds is {self.timeout_seconds}: choose a number above 0")
        if self.max_spend is not None and not self.max_spend >= 0:
            raise ConfigError(f"access.max_spend is {self.max_spend}: choose 0 or more dollars, or none")


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
    max_unscored_share: float = 0.5
    """A training step with a larger share of rollouts without verdict is not taken, and the run stops."""
    parted: Literal["warn", "pause", "off"] = "warn"
    """What happens when the gap between the training judge and the held-out one grows: see docs/judges.md."""
    parted_steps: int = 50
    """Most first and last steps that are compared for that: a quarter of the run so far, but 5 or more."""
    parted_errors: float = 3.0
    """Standard errors by which the gap must have grown."""

    def __post_init__(self) -> None:
        _at_least(self, "judges.", reply_tokens=1, parted_steps=2, parted_errors=0)
        for name in ("agreement", "satisfaction", "heldout_judge"):
            if "self" in re.split("[,+]", getattr(self, name)):
                raise ConfigError(f"judges.{name} is self: only judges.agency can be the policy itself")
        if self.parted == "pause" and not self.heldout:
            raise ConfigError("judges.parted is pause, but judges.heldout is false: let a second judge watch, or warn")
        if not 0 < self.copy_limit <= 1:
            raise ConfigError(f"judges.copy_limit is {self.copy_limit}: choose a number above 0 and at most 1")
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
    """Weight of the KL penalty towards the policy that the run began with (with its adapter, if it has one)."""
    advantage_scale: Literal["group", "none"] = "group"
    seats: Literal["policy", "both"] = "policy"
    tokens: Literal["dialogue", "completion", "both"] = "dialogue"
    opponent: Literal["copy", "base", "lagged"] = "copy"
    """Who speaks in seat 1: the policy of this step, the model without its adapter, or an earlier policy."""
    opponent_lag: int = 5
    """The steps after which a lagged opponent becomes the policy of that moment."""
    agreement_gate: bool = True
    """A dialogue without agreement earns 0; false has its answer written and scored like any other."""
    token_budget: int = 0
    """Training ends after the step in which the run has sampled this many tokens, even before `steps`; 0 sets none."""
    micro_batch_tokens: int = 4096
    """Most padded tokens in one forward and backward pass."""

    def __post_init__(self) -> None:
        _at_least(
            self, "optimization.", learning_rate=0, steps=1, scenarios_per_step=1, group_size=2, epochs_per_step=1,
            warmup_steps=0, micro_batch_tokens=64, clip_low=0, clip_high=0, importance_cap=0, kl_coefficient=0,
            weight_decay=0, max_grad_norm=0, opponent_lag=1, token_budget=0,
        )  # fmt: skip
        if self.seats == "both" and self.opponent != "copy":
            raise ConfigError(
                f"optimization.seats is both, but opponent {self.opponent!r} is not the policy: choose opponent copy"
            )


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
    personas_relation: Literal["opposing", "neutral", "same"] = "opposing"
    """What both seats hold: the two goals of a pair, no goal of their own, or the same goal of a pair."""
    solo: bool = False
    """One seat answers alone (the single-agent baseline)."""
    questions: str = "none"
    """Open-ended questions in place of dilemmas with `solo`, or beside them with `question_share`: none, shipped, or a
    JSONL file with rows id, question."""
    question_share: float = 0.0
    """The share of a step's scenarios that are questions, which one seat answers alone; the others are negotiated."""
    save_every: int = 5
    keep_checkpoints: int = 2
    threads: int = 0
    """CPU threads; 0 lets the libraries choose."""
    trackers: tuple[str, ...] = ()
    """Besides metrics.jsonl: tensorboard, trackio, wandb."""
    store_tokens: bool = False
    """Write every sampled token with its log-probability before and after the step, for the viewer; slower."""
    resume: bool = False
    """Continue the run directory from its last checkpoint."""
    process_timeout_seconds: int = 1800
    """How long a process of a run in several waits for the others before it ends."""
    model: ModelConfig = field(default_factory=ModelConfig)
    negotiation: NegotiationConfig = field(default_factory=NegotiationConfig)
    judges: JudgeConfig = field(default_factory=JudgeConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)

    def __post_init__(self) -> None:
        _at_least(self, "", seed=0, save_every=1, keep_checkpoints=1, threads=0, process_timeout_seconds=1)
        if not 0 <= self.question_share < 1:
            raise ConfigError(f"question_share is {self.question_share}: choose 0 or more and less than 1")
        if self.questions != "none" and not self.solo and not self.question_share:
            raise ConfigError(
                f"questions is {self.questions}, which nobody negotiates: add solo = true, or a question_share above 0"
            )
        if self.question_share and (self.questions == "none" or self.solo):
            raise ConfigError(
                f"question_share is {self.question_share}: it mixes questions with negotiations, so name questions "
                "and leave solo out"
            )
        for tracker in self.trackers:
            if tracker not in ("tensorboard", "trackio", "wandb"):
                raise ConfigError(f"trackers has {tracker!r}: choose among tensorboard, trackio, wandb")


@dataclass(frozen=True)
class EvaluateConfig:
    """Compare several models on tasks (`models`), or two adapters on held-out scenarios (`before`, `after`), paired."""

    models: tuple[str, ...] = ()
    """NAME=ADAPTER of each model: none (the base model), warm-start, a PEFT folder, or PROVIDER/MODEL at an address."""
    tasks: str = "shipped"
    """Conflict tasks for `models`: shipped, none, or a JSONL file: id, tier, domain, dilemma, persona_a, persona_b."""
    open_ended: str = "none"
    """Open-ended questions for `models`: shipped, none, or a JSONL file with rows id, question."""
    transfer: str = "none"
    """Cases for `models`: shipped, none, or a JSONL file with rows id, title, situation, stakeholders."""
    alone: bool = False
    """Let each model also answer the conflict tasks alone, without personas and without a dialogue."""
    limit: int = 0
    """Most tasks of each kind, drawn evenly from its file; 0 takes all."""
    runs: int = 3
    """Dialogues per task and model with sampled decoding, each with its own seed; greedy decoding is played once."""
    decoding: tuple[str, ...] = ("sampled",)
    """greedy, sampled or both: how the models of `models` draw words."""
    pairs: tuple[str, ...] = ()
    """Cross-play, A:B for each pair: model A in seat 0 and model B in seat 1; each of `models` plays itself anyway."""
    batch: int = 64
    """Dialogues of `models` that are played and written down together."""
    tie_margin: float = 0.25
    """Two answers whose scores differ by at most this are a tie."""
    ifeval: str = "none"
    """A file of IFEval's prompts to measure `models` on (input_data.jsonl of its authors), or none."""
    ifeval_tokens: int = 1024
    """Longest answer to a prompt of IFEval."""
    before: str = "none"
    """Without `models`, the first adapter: none, warm-start or a PEFT folder."""
    after: str = "warm-start"
    """Without `models`, the second adapter: none, warm-start or a PEFT folder."""
    out: Path = Path("runs/evaluation")
    split: Split = "test"
    """The split of the scenarios of `before` and `after`."""
    scenarios: int = 64
    """Scenarios of `before` and `after`."""
    samples: int = 2
    """Dialogues of `before` and `after` per scenario, each with its own seed."""
    seed: int = 1
    dilemmas: str = "shipped"
    personas: str = "shipped"
    threads: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    negotiation: NegotiationConfig = field(default_factory=NegotiationConfig)
    judges: JudgeConfig = field(default_factory=JudgeConfig)
    access: AccessConfig = field(default_factory=AccessConfig)

    def __post_init__(self) -> None:
        _at_least(
            self, "", scenarios=1, samples=1, seed=0, threads=0, runs=1, batch=1, tie_margin=0, ifeval_tokens=1, limit=0
        )
        if "self" in self.judges.agency.split(","):
            raise ConfigError("judges.agency is self, which is another judge for each model: name one for all of them")
        for decoding in self.decoding or ("nothing",):
            if decoding not in ("greedy", "sampled"):
                raise ConfigError(f"decoding has {decoding!r}: choose greedy, sampled or greedy,sampled")


@dataclass(frozen=True)
class ScoreConfig:
    """Judge the rows of a file."""

    access: AccessConfig = field(default_factory=AccessConfig)


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


@dataclass(frozen=True)
class StudyConfig:
    """Train every arm with every seed, compare them all with the model they began with, and report."""

    run: Path = Path("runs/study")
    """Where runs, comparison and report lie; an unfinished study is continued."""
    arms: tuple[str, ...] = ("multi-agent=configs/demo.toml", "single-agent=configs/baseline.toml")
    """NAME=FILE of each arm: a recipe of `comity demo`, of which the table `train` counts."""
    seeds: int = 3
    """Each arm is trained with the seeds 0 to this number minus 1."""
    match_tokens: tuple[str, ...] = ()
    """ARM:OTHER: train ARM until it has sampled as many tokens as OTHER did with the same seed."""
    negotiating: str = "multi-agent"
    """The arm that is held against the targets, and that the ablations change."""
    single: str = "single-agent"
    """The arm that the targets call the single agent."""
    ablations: tuple[str, ...] = ()
    """NAME=FILE of each ablation, as in arms; they meet the negotiating arm on sampled conflict tasks alone."""
    ablation_seeds: int = 3
    """Each ablation is trained with the seeds 0 to this number minus 1."""
    steps: int = 0
    """Training steps of every run but the token-matched ones; 0 takes those of the recipes."""
    scenarios_per_step: int = 0
    """Scenarios of every training step; 0 takes those of the recipes."""
    curve_every: int = 0
    """Steps between the checkpoints of seed 0 that play held-out tasks for the curves; 0 draws none."""
    curve_tasks: int = 20
    """Conflict tasks that each of these checkpoints plays."""
    page: str = "none"
    """A Markdown file, such as docs/study.md, that the finished study is published in; none keeps it in the run."""
    evaluation: EvaluateConfig = field(default_factory=EvaluateConfig)
    """How they are compared; `models` and `out` follow from the study."""

    def __post_init__(self) -> None:
        _at_least(
            self, "", seeds=1, ablation_seeds=1, steps=0, scenarios_per_step=0, curve_every=0, curve_tasks=1
        )  # fmt: skip
        if self.ablations and self.ablation_seeds > self.seeds:
            raise ConfigError(
                f"ablation_seeds is {self.ablation_seeds}, but the arm that they meet has {self.seeds}: choose at most "
                "seeds"
            )


def _at_least(settings: Any, prefix: str, **minima: float) -> None:
    for name, minimum in minima.items():
        value = getattr(settings, name)
        if not value >= minimum:
            raise ConfigError(f"{prefix}{name} is {value}: choose {minimum} or more")
