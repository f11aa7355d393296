"""Tokens through Llama's layers, without gradients: one of each row, or whole packed sequences."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from comity.engines.attention import attend
from comity.engines.llama import Llama, LlamaLayer, rotate_heads
from comity.engines.packing import Packed

ROWS = 512
"""Rows of a packed sequence that go through the linear maps together: their states stay in the processor's cache."""

OnLayer = Callable[[int, Tensor], bool]
"""Gets the number of layers passed and the states (T, D) after them; says whether to go on."""
Turn = tuple[Tensor, Tensor]
"""Cosines and signed sines (T, 1, d)."""
Attend = Callable[[int, Tensor, Turn], Tensor]
"""Gets the layer's number, queries, keys and values (B, H + 2 K, d) and how to turn them; returns (B, H x d)."""


def pass_tokens(llama: Llama, ids_B: Tensor, position_B: Tensor, attention: Attend) -> Tensor:
    """Return the states (B, D) of one token a row after the last layer, before the final norm."""
    heads, keys = llama.heads, llama.key_heads
    states_BD = llama.embedding_VD[ids_B]
    turn = llama.rotate(position_B)
    for number, layer in enumerate(llama.layers):
        qkv_BO = layer.qkv(llama.norm_states(states_BD, layer.attention_norm))
        found_BD = attention(number, qkv_BO.view(len(ids_B), heads + 2 * keys, -1), turn)
        states_BD = pass_mlp(llama, layer, layer.output.plus(found_BD, states_BD))
    return states_BD


def pass_packed(
    llama: Llama,
    packed: Packed,
    on_keys: Callable[[int, Tensor, Tensor], None] | None = None,
    on_layer: OnLayer | None = None,
) -> Tensor:
    """Return the states (T, D) of packed sequences after the last layer, before the final norm.

    `on_keys` gets each layer's number, keys and values (K, T, d).
    """
    states_TD = llama.embedding_VD[packed.ids_T]
    turn = llama.rotate(packed.position_T)
    for number, layer in enumerate(llama.layers):
        query_HTd, key_KTd, value_KTd = project(llama, layer, states_TD, turn)
        if on_keys is not None:
            on_keys(number, key_KTd, value_KTd)
        found_TD = attend(query_HTd, key_KTd, value_KTd, packed)
        parts = [
            pass_mlp(llama, layer, layer.output.plus(found_TD[rows], states_TD[rows]))
            for rows in slice_rows(len(states_TD))
        ]
        states_TD = torch.cat(parts)
        if on_layer is not None and not on_layer(number + 1, states_TD):
            break
    return states_TD


def project(llama: Llama, layer: LlamaLayer, states_TD: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries (H, T, d), turned and scaled, turned keys and values (K, T, d)."""
    heads, keys, width = llama.heads, llama.key_heads, turn[0].shape[-1]
    query_HTd = states_TD.new_empty(heads, len(states_TD), width)
    key_KTd, value_KTd = (states_TD.new_empty(keys, len(states_TD), width) for _ in range(2))
    for rows in slice_rows(len(states_TD)):
        qkv_RO = layer.qkv(llama.norm_states(states_TD[rows], layer.attention_norm))
        qkv_RHd = qkv_RO.view(len(qkv_RO), heads + 2 * keys, width)
        turned_HRd = rotate_heads(qkv_RHd[:, : heads + keys], turn[0][rows], turn[1][rows]).transpose(0, 1)
        torch.mul(turned_HRd[:heads], llama.scale, out=query_HTd[:, rows])
        key_KTd[:, rows] = turned_HRd[heads:]
        value_KTd[:, rows] = qkv_RHd[:, heads + keys :].transpose(0, 1)
    return query_HTd, key_KTd, value_KTd


def pass_mlp(llama: Llama, layer: LlamaLayer, states_TD: Tensor) -> Tensor:
    """Return the states after the gated map (Shazeer 2020), added to those before it."""
    normed_TD = llama.norm_states(states_TD, layer.mlp_norm)
    return layer.down.plus(layer.up.times(normed_TD, layer.gate.swish(normed_TD)), states_TD)


def slice_rows(count: int) -> Iterator[slice]:
    """Yield slices of at most `ROWS` rows, about equally long."""
    parts = -(-count // ROWS)
    for part in range(parts):
        yield slice(part * count // parts, (part + 1) * count // parts)
