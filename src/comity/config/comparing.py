"""Settings of what compares models: an evaluation, a demo, a study."""

from dataclasses import dataclass, field
from pathlib import Path

from comity.config.judges import JudgeConfig
from comity.config.models import AccessConfig, ModelConfig
from comity.config.negotiation import NegotiationConfig
from comity.config.ranges import at_least
from comity.config.training import TrainConfig
from comity.errors import ConfigError
from comity.types import Split


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
        at_least(
            self, "", scenarios=1, samples=1, seed=0, threads=0, runs=1, batch=1, tie_margin=0, ifeval_tokens=1, limit=0
        )
        if "self" in self.judges.agency.split(","):
            raise ConfigError("judges.agency is self, which is another judge for each model: name one for all of them")
        for decoding in self.decoding or ("nothing",):
            if decoding not in ("greedy", "sampled"):
                raise ConfigError(f"decoding has {decoding!r}: choose greedy, sampled or greedy,sampled")


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
        at_least(self, "", scenarios=1, samples=1, evaluation_seed=0)


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
    notes: str = "none"
    """A Markdown file that the page ends with, for what files of the run cannot tell: what did not work, and why."""
    evaluation: EvaluateConfig = field(default_factory=EvaluateConfig)
    """How they are compared; `models` and `out` follow from the study."""

    def __post_init__(self) -> None:
        at_least(
            self, "", seeds=1, ablation_seeds=1, steps=0, scenarios_per_step=0, curve_every=0, curve_tasks=1
        )  # fmt: skip
        if self.ablations and self.ablation_seeds > self.seeds:
            raise ConfigError(
                f"ablation_seeds is {self.ablation_seeds}, but the arm that they meet has {self.seeds}: choose at most "
                "seeds"
            )
