"""Optional experiment trackers beside metrics.jsonl; each becomes a function of step and metrics."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from comity.config import TrainConfig, to_plain
from comity.errors import ConfigError

Tracker = Callable[[int, dict[str, float]], None]


def open_trackers(config: TrainConfig) -> list[Tracker]:
    """Return one tracker for each name in the setting; raise ConfigError when its package is not installed."""
    builders = {"tensorboard": _tensorboard, "trackio": _project_tracker, "wandb": _project_tracker}
    return [builders[name](name, config) for name in config.trackers]


def _import(name: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"trackers has {name!r}, which is not installed: run `pip install comity[{name}]`") from error


def _tensorboard(name: str, config: TrainConfig) -> Tracker:
    _import(name, "tensorboard")
    writer = _import(name, "torch.utils.tensorboard").SummaryWriter(str(config.run / "tensorboard"))

    def track(step: int, metrics: dict[str, float]) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)
        writer.flush()

    return track


def _project_tracker(name: str, config: TrainConfig) -> Tracker:
    # trackio follows wandb's interface.
    module = _import(name, name)
    run = module.init(project="comity", name=config.run.name, config=to_plain(config))

    def track(step: int, metrics: dict[str, float]) -> None:
        run.log(metrics, step=step) if name == "wandb" else module.log(metrics, step=step)

    return track
