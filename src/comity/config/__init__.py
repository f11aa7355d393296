"""Settings: frozen dataclasses, one per command, from a TOML file plus `--key value` overrides."""

from comity.config.cluster import ClusterConfig
from comity.config.comparing import DemoConfig, EvaluateConfig, StudyConfig
from comity.config.judges import JudgeConfig, ScoreConfig
from comity.config.models import AccessConfig, ModelConfig
from comity.config.negotiation import NegotiationConfig
from comity.config.rollouts import RolloutConfig
from comity.config.training import OptimizationConfig, TrainConfig
from comity.settings import build, load_config, to_plain

__all__ = [
    "AccessConfig", "ClusterConfig", "DemoConfig", "EvaluateConfig", "JudgeConfig", "ModelConfig", "NegotiationConfig",
    "OptimizationConfig", "RolloutConfig", "ScoreConfig", "StudyConfig", "TrainConfig", "build", "load_config",
    "to_plain",
]  # fmt: skip
