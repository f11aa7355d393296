"""Settings of a run whose workers are spread over a cluster."""

from dataclasses import dataclass
from typing import Literal

from comity.config.ranges import at_least
from comity.errors import ConfigError


@dataclass(frozen=True)
class ClusterConfig:
    """Where the parts of a training run live: in this process, or in workers that Ray places (`comity train` only)."""

    kind: Literal["none", "ray"] = "none"
    """`none`: this process and those of its launcher; `ray` (also `--cluster ray`): workers under Ray."""
    address: str = "local"
    """Ray's address (also `--address`): local starts Ray here, auto joins the one of this machine, or HOST:PORT."""
    trainers: int = 1
    """Processes that train together under Ray Train."""
    workers: int = 1
    """Workers that sample text, each with a model of its own."""
    judges: int = 1
    """Workers that judge, on one machine; the limits of [access] are shared out among them."""
    trainer_cpus: float = 1.0
    trainer_gpus: float = 0.0
    worker_cpus: float = 1.0
    worker_gpus: float = 0.0
    """Parts of a GPU let several workers share one."""
    judge_cpus: float = 1.0
    judge_gpus: float = 0.0
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """Ray's strategy for the machines of the workers."""
    restarts: int = 3
    """How often Ray starts a worker anew that died, and the trainers from their last checkpoint; -1 sets no limit."""
    max_staleness: int = 0
    """How many versions the policy that speaks may be behind the one that learns; 0 lets them take turns."""
    storage: str = ""
    """A folder that every machine sees, for Ray Train; empty: a temporary one, which does for one machine."""
    object_store_mb: int = 0
    """Memory for what workers pass on, where Ray is started here; 0 leaves it to Ray."""

    def __post_init__(self) -> None:
        at_least(
            self, "cluster.", trainers=1, workers=1, judges=1, restarts=-1, max_staleness=0, object_store_mb=0,
            trainer_cpus=0, trainer_gpus=0, worker_cpus=0, worker_gpus=0, judge_cpus=0, judge_gpus=0,
        )  # fmt: skip
        if self.max_staleness and self.kind == "none":
            raise ConfigError(
                f"cluster.max_staleness is {self.max_staleness}, but one process speaks and learns in turns: choose 0, "
                "or kind ray"
            )
