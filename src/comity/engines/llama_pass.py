"""One pass of packed tokens through Llama's layers, without gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from comity.engines.attention import attend
from comity.engines.llama import Llama, LlamaLayer, rotate_heads
from comity.engines.packing import Packed

MLP_ROWS = 2048
"""Most rows whose inner states, which are the widest, exist at once."""
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Gets the layer's number, queries (T, H, d), keys and values (T, K, d); returns (T, H x d)."""
OnLayer = Callable[[int, Tensor], bool]
"""Gets the number of layers passed and the states (T, D) after them; says whether to go on."""


def pass_layers(
    llama: Llama, ids_T: Tensor, position_T: Tensor, attention: Attend, on_layer: OnLayer | None = None
) -> Tensor:
    """Return the states (T, D) after the last layer, before the final norm."""
    heads, keys = llama.heads, llama.key_heads
    states_TD = llama.embedding_VD[ids_T]
    cos_T1d, sin_T1d = llama.rotate(position_T)
    for number, layer in enumerate(llama.layers):
        normed_TD = llama.norm_states(states_TD, layer.attention_norm)
        qkv_THd = layer.qkv(normed_TD).view(len(ids_T), heads + 2 * keys, -1)
        turned_THd = rotate_heads(qkv_THd[:, : heads + keys], cos_T1d, sin_T1d)
        found_TD = attention(number, turned_THd[:, :heads], turned_THd[:, heads:], qkv_THd[:, heads + keys :])
        states_TD = layer.output.plus(found_TD, states_TD)
        states_TD = torch.cat([_pass_mlp(llama, layer, part) for part in torch.split(states_TD, MLP_ROWS)])
        if on_layer is not None and not on_layer(number + 1, states_TD):
            break
    return states_TD


def _pass_mlp(llama: Llama, layer: LlamaLayer, states_TD: Tensor) -> Tensor:
    normed_TD = llama.norm_states(states_TD, layer.mlp_norm)
    return layer.down.plus(layer.up.times(normed_TD, layer.gate.swish(normed_TD)), states_TD)


def pass_packed(
    llama: Llama,
    packed: Packed,
    on_keys: Callable[[int, Tensor, Tensor], None] | None = None,
    on_layer: OnLayer | None = None,
) -> Tensor:
    """Return the states (T, D) of packed sequences; `on_keys` gets each layer's number, keys and values (K, T, d)."""

    def attention(number: int, query_THd: Tensor, key_TKd: Tensor, value_TKd: Tensor) -> Tensor:
        key_KTd, value_KTd = (item.transpose(0, 1).contiguous() for item in (key_TKd, value_TKd))
        if on_keys is not None:
            on_keys(number, key_KTd, value_KTd)
        return attend((query_THd * llama.scale).transpose(0, 1), key_KTd, value_KTd, packed)

    return pass_layers(llama, packed.ids_T, packed.position_T, attention, on_layer)
