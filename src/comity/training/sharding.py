"""A base model that is spread over the processes of a run: FSDP2 as Accelerate's configuration asks for it.

Only the frozen base is sharded, layer by layer. The adapter stays whole in every process, as without sharding, so loss,
gradients, optimiser and checkpoints are the same. A layer is gathered for each pass through it, in which all processes
must take part: they make the same number of passes in the update, and hold whole layers while they play on their own.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import PreTrainedModel

from comity.config import ModelConfig
from comity.engines.models import decoder_of
from comity.errors import ConfigError


def wants_sharding(settings: ModelConfig, world_size: int) -> bool:
    """Tell whether the launcher's configuration asks for FSDP2; raise ConfigError for what is not supported."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true" or world_size == 1:
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("the launcher's configuration asks for FSDP of version 1: set fsdp_version to 2")
    if settings.quantization != "none":
        raise ConfigError(
            f"model.quantization is {settings.quantization}, which FSDP2 does not shard here: choose none, or a "
            "configuration without FSDP"
        )
    return True


def shard_base(model: PreTrainedModel) -> None:
    """Spread the layers of the frozen base over all processes; parameters that are trained stay whole."""
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    mesh = init_device_mesh(model.device.type, (torch.distributed.get_world_size(),))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh, ignored_params=trained)


@contextmanager
def whole_base(model: PreTrainedModel) -> Iterator[None]:
    """Hold all layers whole inside the context, where processes pass through them as often as each likes.

    All processes enter and leave together. Nothing to do for a model that is not sharded.
    """
    layers = _sharded_layers(model)
    for layer in layers:
        layer.set_reshard_after_forward(False)
        layer.unshard()
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True)
            layer.reshard()


def is_sharded(model: PreTrainedModel) -> bool:
    """Tell whether the layers of the model are spread over several processes."""
    return bool(_sharded_layers(model))


def _sharded_layers(model: PreTrainedModel) -> Sequence[FSDPModule]:
    return [layer for layer in _layers(model) if isinstance(layer, FSDPModule)]


def _layers(model: PreTrainedModel) -> Sequence[nn.Module]:
    layers = decoder_of(model).get_submodule("layers")
    assert isinstance(layers, nn.ModuleList)
    return list(layers)
