"""Llama's arithmetic over plain weights: an adapter folded in, weights packed for oneDNN, no module in between.

The model of transformers stays the reference and the fall-back: `open_llama` returns None for every other architecture,
for quantised weights, and for adapters that cannot be folded. What is computed here is the same function; only the
order of additions and the places of rounding differ.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from comity.engines.kernels import Kernels, open_kernels
from comity.engines.merging import can_fold, folded_weight, has_active_adapter

MAPS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
        "mlp.up_proj", "mlp.down_proj")  # fmt: skip


@dataclass
class LinearMap:
    """One linear map without bias, in oneDNN's own layout where that is at hand (bfloat16 on the CPU).

    oneDNN's layout saves reordering the weight at every product: a quarter of the time for 32 rows, a tenth for 2,000.
    """

    weight_OI: Tensor
    """Plain weight, or the packed one."""
    packed: bool
    transposed_IO: Tensor | None = None

    @staticmethod
    def create(weight_OI: Tensor) -> "LinearMap":
        """Return the map, packed where that is possible."""
        if not can_pack(weight_OI.dtype):
            return LinearMap(weight_OI, False)
        return LinearMap(_pack(weight_OI), True)

    def __call__(self, states_TI: Tensor) -> Tensor:
        """Return `states @ weight.T`."""
        return _multiply(states_TI, self.weight_OI) if self.packed else functional.linear(states_TI, self.weight_OI)

    def swish(self, states_TI: Tensor) -> Tensor:
        """Return silu of the product."""
        if self.packed:
            return _multiply(states_TI, self.weight_OI, "swish")
        return functional.silu(functional.linear(states_TI, self.weight_OI))

    def times(self, states_TI: Tensor, other_TO: Tensor) -> Tensor:
        """Return the product times other values, rounded once."""
        if self.packed:
            return _combine(states_TI, other_TO, self.weight_OI, "mul")
        return functional.linear(states_TI, self.weight_OI).mul_(other_TO)

    def plus(self, states_TI: Tensor, other_TO: Tensor) -> Tensor:
        """Return the product plus other values, rounded once."""
        if self.packed:
            return _combine(states_TI, other_TO, self.weight_OI, "add")
        return functional.linear(states_TI, self.weight_OI).add_(other_TO)

    def backward(self, gradient_TO: Tensor) -> Tensor:
        """Return the gradient with respect to the input, `gradient @ weight`."""
        if not self.packed:
            return gradient_TO @ self.weight_OI
        if self.transposed_IO is None:
            self.transposed_IO = _pack(self.weight_OI.to_dense().t().contiguous())
        return _multiply(gradient_TO, self.transposed_IO)


def can_pack(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN multiplies packed weights of this kind on this processor."""
    return dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _pack(weight_OI: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)
    return packed


def _multiply(states_TI: Tensor, weight_OI: Tensor, activation: str = "none") -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(states_TI, weight_OI, None, activation, [], "")
    return result


def _combine(states_TI: Tensor, other_TO: Tensor, weight_OI: Tensor, how: str) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(states_TI, other_TO, weight_OI, None, how)
    return result


@dataclass(frozen=True)
class LlamaLayer:
    """The weights of one decoder layer; queries, keys and values are one map."""

    attention_norm: Tensor
    qkv: LinearMap
    output: LinearMap
    mlp_norm: Tensor
    gate: LinearMap
    up: LinearMap
    down: LinearMap
    adapted: tuple[LoraLayer | None, ...]
    """The layers of the adapter in the order of `MAPS`, None for a map without."""


@dataclass(frozen=True)
class Llama:
    """A Llama with its adapter folded in. H query heads, K key heads, each d wide."""

    embedding_VD: Tensor
    layers: tuple[LlamaLayer, ...]
    norm: Tensor
    head: LinearMap
    heads: int
    key_heads: int
    head_width: int
    epsilon: float
    scale: float
    rotate: Callable[[Tensor], tuple[Tensor, Tensor]]
    """Gives cosines and signed sines (T, 1, d) of positions (T,)."""
    kernels: Kernels | None
    """None where torch alone computes."""

    def norm_states(self, states_TD: Tensor, weight_D: Tensor) -> Tensor:
        """Return the root-mean-square norm of every row; no gradients."""
        if self.kernels is not None:
            return self.kernels.norm_states(states_TD, weight_D, self.epsilon)
        return functional.rms_norm(states_TD, (states_TD.shape[-1],), weight_D, self.epsilon)


def rotate_heads(heads_THd: Tensor, cos_T1d: Tensor, sin_T1d: Tensor) -> Tensor:
    """Return heads turned by their positions (Su et al. 2021); sines carry the sign of the half that they meet."""
    half = heads_THd.shape[-1] // 2
    swapped_THd = torch.cat((heads_THd[..., half:], heads_THd[..., :half]), -1)
    return torch.addcmul(heads_THd * cos_T1d, swapped_THd, sin_T1d)


_State = list[tuple[float, list[tuple[Tensor, int]]]]
"""The scaling of each map's adapter, and the tensors of map and adapter with their versions."""
_opened: "weakref.WeakKeyDictionary[nn.Module, dict[bool, tuple[_State, Llama]]]" = weakref.WeakKeyDictionary()
"""For each base model: without an adapter, as judges read it, and with the one that was on last."""


def open_llama(model: PreTrainedModel) -> Llama | None:
    """Return the model as it speaks now, its active adapter folded in; None where only transformers can compute it.

    Folding and packing take about half a second for 100 million parameters. The last results with and without an
    adapter are kept for each base model as long as their weights do not change.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not _is_known(base) or getattr(model, "modules_to_save", None):
        return None
    maps = [[layer.get_submodule(name) for name in MAPS] for layer in base.model.layers]
    if not all(_is_plain(module) for layer in maps for module in layer):
        return None
    others = [module for name, module in base.named_modules() if isinstance(module, LoraLayer)]
    if len(others) != sum(isinstance(module, LoraLayer) for layer in maps for module in layer):
        return None  # an adapter on the embedding or the output layer
    state = [_fingerprint(module) for layer in maps for module in layer]
    kept = _opened.setdefault(base, {})
    adapted = any(_adapter_of(module) is not None for layer in maps for module in layer)
    if adapted in kept and _is_same(kept[adapted][0], state):
        return kept[adapted][1]
    kept.pop(adapted, None)  # before the new weights are made: there is no need for both
    with torch.inference_mode(False), torch.no_grad():
        kept[adapted] = (state, _build(base, maps))
    return kept[adapted][1]


def _is_known(base: PreTrainedModel) -> bool:
    if type(base) is not LlamaForCausalLM or torch.device(base.device).type != "cpu":
        return False
    config = base.config
    dtypes = {parameter.dtype for name, parameter in base.named_parameters() if "lora_" not in name}
    return (
        config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
        and len(dtypes) == 1
        # Tensors of inference mode do not tell when they change.
        and not any(parameter.is_inference() for parameter in base.parameters())
        and dtypes <= {torch.bfloat16, torch.float32, torch.float64}
        # Other kinds change their frequencies with the length of a text.
        and config.rope_parameters["rope_type"] in ("default", "linear", "llama3")
        and type(base.lm_head) is nn.Linear
        # What spreads layers over processes gives them another class.
        and all(type(layer) is LlamaDecoderLayer for layer in base.model.layers)
        and type(base.model.embed_tokens) is nn.Embedding
    )


def _is_plain(module: nn.Module) -> bool:
    if isinstance(module, LoraLayer):
        if module.disable_adapters or not has_active_adapter(module):
            return type(module.get_base_layer()) is nn.Linear and not module.merged
        drops = module.lora_dropout[module.active_adapters[0]] if module.active_adapters else None
        return can_fold(module) and (not module.training or not isinstance(drops, nn.Dropout))
    return type(module) is nn.Linear


def _adapter_of(module: nn.Module) -> LoraLayer | None:
    if isinstance(module, LoraLayer) and not module.disable_adapters and has_active_adapter(module):
        return module
    return None


def _fingerprint(module: nn.Module) -> tuple[float, list[tuple[Tensor, int]]]:
    # The tensors themselves are kept, so that their memory cannot be given to other weights; their versions count
    # every change in place.
    layer = _adapter_of(module)
    weights, scaling = [_base_weight(module)], 0.0
    if layer is not None:
        name = layer.active_adapters[0]
        weights += [layer.lora_A[name].weight, layer.lora_B[name].weight]
        scaling = layer.scaling[name]
    return scaling, [(weight.detach(), weight._version) for weight in weights]


def _base_weight(module: nn.Module) -> Tensor:
    weight = (module.get_base_layer() if isinstance(module, LoraLayer) else module).weight
    assert isinstance(weight, Tensor)
    return weight


def _is_same(known: _State, state: _State) -> bool:
    return all(
        old_scaling == scaling
        and [(item.data_ptr(), version) for item, version in old]
        == [(item.data_ptr(), version) for item, version in new]
        for (old_scaling, old), (scaling, new) in zip(known, state, strict=True)
    )


def _build(base: LlamaForCausalLM, maps: list[list[nn.Module]]) -> Llama:
    config = base.config
    layers = []
    for layer, modules in zip(base.model.layers, maps, strict=True):
        weights = [_weight_now(module) for module in modules]
        layers.append(
            LlamaLayer(
                attention_norm=layer.input_layernorm.weight.detach(),
                qkv=LinearMap.create(torch.cat(weights[:3])),
                output=LinearMap.create(weights[3]),
                mlp_norm=layer.post_attention_layernorm.weight.detach(),
                gate=LinearMap.create(weights[4]),
                up=LinearMap.create(weights[5]),
                down=LinearMap.create(weights[6]),
                adapted=tuple(_adapter_of(module) for module in modules),
            )
        )
    return Llama(
        embedding_VD=base.model.embed_tokens.weight.detach(),
        layers=tuple(layers),
        norm=base.model.norm.weight.detach(),
        head=_head_of(base),
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head_width=base.model.layers[0].self_attn.head_dim,
        epsilon=config.rms_norm_eps,
        scale=base.model.layers[0].self_attn.scaling,
        rotate=_rotation(base),
        kernels=open_kernels(base.dtype),
    )


def _weight_now(module: nn.Module) -> Tensor:
    layer = _adapter_of(module)
    weight = _base_weight(module).detach()
    return weight if layer is None else folded_weight(layer, weight)


_heads: "weakref.WeakKeyDictionary[nn.Module, tuple[Tensor, int, LinearMap]]" = weakref.WeakKeyDictionary()


def _head_of(base: LlamaForCausalLM) -> LinearMap:
    # The output layer has no adapter: it is packed once for a model.
    weight = base.lm_head.weight
    known = _heads.get(base.lm_head)
    if known is None or known[0].data_ptr() != weight.data_ptr() or known[1] != weight._version:
        known = (weight.detach(), weight._version, LinearMap.create(weight.detach()))
        _heads[base.lm_head] = known
    return known[2]


def _rotation(base: LlamaForCausalLM) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    embed: nn.Module = base.model.rotary_emb
    dtype = base.dtype

    def rotate(position_T: Tensor) -> tuple[Tensor, Tensor]:
        cos_1Td, sin_1Td = embed(torch.empty(0, dtype=dtype), position_T[None])
        half = sin_1Td.shape[-1] // 2
        sin_1Td = torch.cat((-sin_1Td[..., :half], sin_1Td[..., half:]), -1)
        return cos_1Td[0, :, None], sin_1Td[0, :, None]

    return rotate
