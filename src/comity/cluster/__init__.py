"""A training run whose parts Ray places on one machine or many; only this package imports ray.

    comity train --cluster ray
      driver           reserves places, starts the workers, shows progress (`train.py`)
      trainers         run `training.trainer.train` under Ray Train's TorchTrainer (`train.py`)
      rollout workers  sample text with a model of their own and the policy of the moment (`workers.py`, `pools.py`)
      judge workers    hold the judges and share the limits of [access] out (`workers.py`, `pools.py`)

Scheduling, placement and restarts are Ray's. What a worker is asked carries everything that the answer needs, the
policy included, so Ray can ask a worker that was started anew the same again.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from comity.config import TrainConfig
from comity.errors import ConfigError

if TYPE_CHECKING:
    from comity.training.trainer import OnProgress, OnStep


def train_on_ray(config: TrainConfig, on_step: "OnStep | None" = None, on_progress: "OnProgress | None" = None) -> None:
    """Train under Ray, see `train.py`; raise ConfigError when Ray is not installed."""
    require_ray()
    from comity.cluster.train import train_on_ray

    train_on_ray(config, on_step, on_progress)


def require_ray() -> None:
    """Raise ConfigError when Ray is not installed."""
    if find_spec("ray") is None:
        raise ConfigError("cluster.kind is ray, which is not installed: run `pip install comity[ray]`")
