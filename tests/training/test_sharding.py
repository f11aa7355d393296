"""Which configurations of a launcher ask for a sharded base, and what is said of those that cannot be had."""

import pytest

from comity.config import ModelConfig
from comity.errors import ConfigError
from comity.training.distributed import open_processes
from comity.training.sharding import is_sharded, wants_sharding, whole_base


def test_without_fsdp_nothing_is_sharded(tiny_model):
    assert not wants_sharding(ModelConfig(), 2)
    assert not is_sharded(tiny_model)
    with whole_base(tiny_model):
        pass


def test_fsdp2_is_for_several_processes(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert wants_sharding(ModelConfig(), 2)
    assert not wants_sharding(ModelConfig(), 1)
    with pytest.raises(ConfigError, match=r"model.quantization is nf4, which FSDP2 does not shard here"):
        wants_sharding(ModelConfig(quantization="nf4"), 2)


def test_other_ways_to_share_a_model_are_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="FSDP of version 1: set fsdp_version to 2"):
        wants_sharding(ModelConfig(), 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match=r"asks for DeepSpeed, which does not fit this loop: take one with FSDP2"):
        open_processes("cpu", 5)
