"""Fold a LoRA adapter into the base weights while text is sampled, and restore the weights exactly afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from transformers import PreTrainedModel


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Switch PEFT adapters off inside the context; nothing to do for a plain model."""
    disable = getattr(model, "disable_adapter", None)
    # PEFT makes every adapter trainable when it comes on again; a frozen one shall stay frozen.
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with disable() if callable(disable) else nullcontext():
        yield
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


@contextmanager
def merged_adapter(model: PreTrainedModel) -> Iterator[None]:
    """Sample from folded weights inside the context: one product a layer instead of three.

    The base weights are put back bit for bit. A model without an adapter, or with layers that cannot be folded
    (quantised weights, several active adapters), is left as it is and sampled with the adapter beside its base.
    """
    # With several adapters in one model, a layer may belong to others than the one that is on.
    layers = [module for module in model.modules() if isinstance(module, LoraLayer) and has_active_adapter(module)]
    if not layers or find_unfoldable(model):
        yield
        return
    originals = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer, original in zip(layers, originals, strict=True):
            layer.get_base_layer().weight.data = folded_weight(layer, original)
        with adapters_off(model):
            yield
    finally:
        for layer, original in zip(layers, originals, strict=True):
            layer.get_base_layer().weight.data = original


@torch.no_grad()
def folded_weight(layer: LoraLayer, original: torch.Tensor) -> torch.Tensor:
    """Return base plus adapter, added in float32 or better and rounded once."""
    name, wide = layer.active_adapters[0], torch.promote_types(original.dtype, torch.float32)
    delta = layer.lora_B[name].weight.to(wide) @ layer.lora_A[name].weight.to(wide)
    folded: torch.Tensor = torch.add(original.to(wide), delta, alpha=layer.scaling[name])
    return folded.to(original.dtype)


def has_active_adapter(layer: LoraLayer) -> bool:
    """Tell whether an adapter that is on has weights in this layer."""
    return any(name in layer.lora_A or name in layer.lora_embedding_A for name in layer.active_adapters)


def find_unfoldable(model: PreTrainedModel) -> str:
    """Return the name of a layer whose adapter cannot be folded into its base, nothing when all can."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            if has_active_adapter(module) and not can_fold(module):
                return str(name)
        elif isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            return str(name)  # another kind of adapter, or weights that were trained whole
    return ""


def can_fold(layer: LoraLayer) -> bool:
    """Tell whether the layer is plain LoRA with one adapter on, over weights that are not quantised."""
    plain = type(layer) is Linear and len(layer.active_adapters) == 1
    return (
        plain
        and not layer.use_dora.get(layer.active_adapters[0])
        and not layer.lora_bias.get(layer.active_adapters[0])
        and not layer.merged
        and not layer.disable_adapters
        and layer.get_base_layer().weight.dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    )
