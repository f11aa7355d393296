"""Settings of training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from comity.config.cluster import ClusterConfig
from comity.config.judges import JudgeConfig
from comity.config.models import AccessConfig, ModelConfig
from comity.config.negotiation import NegotiationConfig
from comity.config.ranges import at_least
from comity.config.rollouts import RolloutConfig
from comity.errors import ConfigError


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
    """Most tokens in one forward and backward pass; padding counts where it is computed."""

    def __post_init__(self) -> None:
        at_least(
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
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        at_least(self, "", seed=0, save_every=1, keep_checkpoints=1, threads=0, process_timeout_seconds=1)
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
        if self.cluster.kind == "ray" and self.rollouts.servers:
            raise ConfigError(
                "cluster.kind is ray, whose workers write with models of their own: leave rollouts.servers out, or "
                "choose kind none"
            )
        if self.rollouts.engine == "vllm" and self.model.quantization != "none":
            raise ConfigError(
                f"model.quantization is {self.model.quantization}, but rollouts.engine vllm writes with the weights as "
                "they are, which is another policy: choose none, or rollouts.engine transformers"
            )
        if self.cluster.max_staleness and not self.optimization.importance_cap:
            raise ConfigError(
                f"cluster.max_staleness is {self.cluster.max_staleness}, but optimization.importance_cap is 0: without "
                "the importance weight an older policy's words would count as the new one's: choose a cap above 0"
            )
        for tracker in self.trackers:
            if tracker not in ("tensorboard", "trackio", "wandb"):
                raise ConfigError(f"trackers has {tracker!r}: choose among tensorboard, trackio, wandb")
