"""Log-probabilities of trained tokens and the adapter's gradients, written down for Llama with an adapter folded in.

The folded weight W + s B A computes the function of base and adapter in one product, and passes gradients back in one;
the weights have none. The adapter needs thin products of each map's input x and its result's gradient dy:
dA = s (dy B)^T x and dB = s dy^T (x A^T). Kept for the way back are a few tensors a layer; norms and gates are computed
again.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import functional

from comity.engines.attention import attend, attend_backward
from comity.engines.llama import LinearMap, Llama, LlamaLayer, rotate_heads
from comity.engines.packing import Packed, pack
from comity.training.collate import MicroBatch

LOGIT_ROWS = 256
"""Most trained tokens whose logits exist in float32 at once."""


@dataclass(frozen=True)
class _Kept:
    """What one layer keeps for the way back; queries are turned and scaled, keys turned."""

    states_TD: Tensor
    query_HTd: Tensor
    key_KTd: Tensor
    value_KTd: Tensor
    found_TD: Tensor
    middle_TD: Tensor
    gate_TI: Tensor
    up_TI: Tensor


def llama_logprobs(llama: Llama, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N,) of the trained tokens with gradient, and their entropies (N,) without."""
    packed, place_N = pack_batch(batch)
    weights = [weight for layer in llama.layers for adapter in layer.adapted for weight in _weights_of(adapter)]
    normed_ND = _Layers.apply(llama, packed, place_N, *weights)  # type: ignore[no-untyped-call]
    target_N = batch.suffix_ids_BS[batch.loss_row_N, batch.loss_place_N]
    logprob_N, entropy_N = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        normed_ND, llama.head, target_N, batch.temperatures_N
    )
    return logprob_N, entropy_N


def pack_batch(batch: MicroBatch) -> tuple[Packed, Tensor]:
    """Return the micro-batch without padding, and the places (N,) whose states predict the trained tokens.

    Nothing after a row's last predicting token is computed.
    """
    owners, beginnings = _beginnings(batch)
    last = torch.zeros(len(batch.suffix_ids_BS), dtype=torch.long)
    last.scatter_reduce_(0, batch.loss_row_N, batch.loss_place_N, "amax")
    remainders = [ids[: int(size)] for ids, size in zip(batch.suffix_ids_BS, last, strict=True)]
    packed = pack(beginnings, owners, remainders)
    first_B = torch.tensor([packed.first_of(row) for row in range(len(owners))])
    return packed, first_B[batch.loss_row_N] + batch.loss_place_N - 1


def _beginnings(batch: MicroBatch) -> tuple[list[int], list[Tensor]]:
    found: list[Tensor] = []
    number: dict[int, int] = {}
    for place, (ids, mask) in enumerate(zip(batch.prefix_ids_CP, batch.prefix_mask_CP.bool(), strict=True)):
        if bool(mask.any()):
            number[place] = len(found)
            found.append(ids[mask])
    return [number.get(place, -1) for place in batch.prefix_of_B.tolist()], found


def _weights_of(adapter: LoraLayer | None) -> list[Tensor]:
    if adapter is None:
        return []
    name = adapter.active_adapters[0]
    return [adapter.lora_A[name].weight, adapter.lora_B[name].weight]


class _Layers(torch.autograd.Function):
    """Packed tokens to normed states (N, D) at some places; gradients go to the adapter alone."""

    @staticmethod
    def forward(ctx: Any, llama: Llama, packed: Packed, place_N: Tensor, *weights: Tensor) -> Tensor:
        kept: list[_Kept] | None = [] if any(ctx.needs_input_grad) else None
        states_TD = llama.embedding_VD[packed.ids_T]
        cos_T1d, sin_T1d = llama.rotate(packed.position_T)
        for layer in llama.layers:
            states_TD = _forward_layer(llama, layer, packed, states_TD, (cos_T1d, sin_T1d), kept)
        last_ND = states_TD[place_N]
        ctx.llama, ctx.packed, ctx.place_N, ctx.kept = llama, packed, place_N, kept
        ctx.turn, ctx.last_ND = (cos_T1d, sin_T1d), last_ND
        return llama.norm_states(last_ND, llama.norm)

    @staticmethod
    def backward(ctx: Any, upper_ND: Tensor) -> tuple[Tensor | None, ...]:
        llama, packed, kept = ctx.llama, ctx.packed, ctx.kept
        found: list[list[Tensor]] = []
        wide = torch.promote_types(upper_ND.dtype, torch.float32)
        gradient_TD = torch.zeros(len(packed.ids_T), upper_ND.shape[1], dtype=wide)
        last_ND = _norm_backward(ctx.last_ND, llama.norm, llama.epsilon, upper_ND)[1]
        gradient_TD.index_add_(0, ctx.place_N, last_ND)
        for number in reversed(range(len(llama.layers))):
            layer_kept, kept[number] = kept[number], None
            found.append(_backward_layer(llama, number, packed, layer_kept, gradient_TD, ctx.turn))
        return (None, None, None, *(gradient for layer in reversed(found) for gradient in layer))


def _forward_layer(
    llama: Llama,
    layer: LlamaLayer,
    packed: Packed,
    states_TD: Tensor,
    turn: tuple[Tensor, Tensor],
    kept: list[_Kept] | None,
) -> Tensor:
    heads, keys = llama.heads, llama.key_heads
    qkv_THd = layer.qkv(llama.norm_states(states_TD, layer.attention_norm)).view(len(states_TD), heads + 2 * keys, -1)
    turned_HTd = rotate_heads(qkv_THd[:, : heads + keys], *turn).transpose(0, 1)
    query_HTd = (turned_HTd[:heads] * llama.scale).contiguous()
    key_KTd = turned_HTd[heads:].contiguous()
    value_KTd = qkv_THd[:, heads + keys :].transpose(0, 1).contiguous()
    found_TD = attend(query_HTd, key_KTd, value_KTd, packed)
    middle_TD = layer.output.plus(found_TD, states_TD)
    normed_TD = llama.norm_states(middle_TD, layer.mlp_norm)
    gate_TI, up_TI = layer.gate(normed_TD), layer.up(normed_TD)
    if kept is not None:
        kept.append(_Kept(states_TD, query_HTd, key_KTd, value_KTd, found_TD, middle_TD, gate_TI, up_TI))
    return layer.down.plus(functional.silu(gate_TI) * up_TI, middle_TD)


def _backward_layer(
    llama: Llama, number: int, packed: Packed, kept: _Kept, gradient_TD: Tensor, turn: tuple[Tensor, Tensor]
) -> list[Tensor]:
    # Changes gradient_TD, that of the states after the layer, into that of the states before it.
    layer, dtype = llama.layers[number], kept.states_TD.dtype
    query, key, value, output, gate, up, down = layer.adapted
    upper_TD = gradient_TD.to(dtype)
    active_TI = functional.silu(kept.gate_TI)
    found = [_adapter_gradients(down, active_TI * kept.up_TI, upper_TD)]
    inner_TI = layer.down.backward(upper_TD)
    up_TI = inner_TI * active_TI
    gate_TI = torch.ops.aten.silu_backward(inner_TI.mul_(kept.up_TI), kept.gate_TI)
    normed_TD, lower_TD = _norm_backward(
        kept.middle_TD, layer.mlp_norm, llama.epsilon, layer.gate.backward(gate_TI), layer.up.backward(up_TI)
    )
    found += [_adapter_gradients(up, normed_TD, up_TI), _adapter_gradients(gate, normed_TD, gate_TI)]
    upper_TD = gradient_TD.add_(lower_TD).to(dtype)
    found.append(_adapter_gradients(output, kept.found_TD, upper_TD))
    heads_THd = _attention_backward(llama, packed, kept, layer.output.backward(upper_TD), turn)
    sizes = [llama.heads, llama.key_heads, llama.key_heads]
    parts = [item.flatten(1) for item in torch.split(heads_THd, sizes, 1)]
    normed_TD, lower_TD = _norm_backward(
        kept.states_TD, layer.attention_norm, llama.epsilon, layer.qkv.backward(heads_THd.flatten(1))
    )
    gradient_TD.add_(lower_TD)
    found += [
        _adapter_gradients(adapter, normed_TD, part_TD)
        for adapter, part_TD in zip((value, key, query), reversed(parts), strict=True)
    ]
    return [gradient for pair in reversed(found) for gradient in pair]


def _attention_backward(
    llama: Llama, packed: Packed, kept: _Kept, upper_TD: Tensor, turn: tuple[Tensor, Tensor]
) -> Tensor:
    query_THd, key_KTd, value_KTd = attend_backward(kept.query_HTd, kept.key_KTd, kept.value_KTd, upper_TD, packed)
    cos_T1d, sin_T1d = turn
    turned_THd = torch.cat((query_THd * llama.scale, key_KTd.transpose(0, 1)), 1)
    # Turning back is turning by the opposite angle.
    return torch.cat((rotate_heads(turned_THd, cos_T1d, -sin_T1d), value_KTd.transpose(0, 1)), 1)


def _norm_backward(states_TD: Tensor, weight_D: Tensor, epsilon: float, *upper: Tensor) -> tuple[Tensor, Tensor]:
    # Normed states again, and the gradient before the norm, in float32 or better; gradients of several readers add up.
    wide = torch.promote_types(states_TD.dtype, torch.float32)
    inverse_T1 = torch.rsqrt(states_TD.to(wide).square().mean(-1, keepdim=True) + epsilon)
    unit_TD = states_TD * inverse_T1
    slope_TD = upper[0].to(wide)
    for other_TD in upper[1:]:
        slope_TD = slope_TD + other_TD
    slope_TD = slope_TD * weight_D
    along_T1 = (slope_TD * unit_TD).mean(-1, keepdim=True)
    lower_TD = torch.addcmul(slope_TD, unit_TD, along_T1, value=-1).mul_(inverse_T1)
    return unit_TD.to(states_TD.dtype) * weight_D, lower_TD


def _adapter_gradients(adapter: LoraLayer | None, input_TI: Tensor, upper_TO: Tensor) -> list[Tensor]:
    if adapter is None:
        return []
    down_RI, up_OR = _weights_of(adapter)
    scale = adapter.scaling[adapter.active_adapters[0]]
    down_grad_RI = (upper_TO @ up_OR).t() @ input_TI
    up_grad_RO = functional.linear(input_TI, down_RI).t() @ upper_TO
    return [down_grad_RI * scale, up_grad_RO.t() * scale]


class _TokenLogprobs(torch.autograd.Function):
    """States (N, D) to log-probabilities of target tokens at their temperatures, and entropies; N in slices."""

    @staticmethod
    def forward(
        ctx: Any, states_ND: Tensor, head: LinearMap, target_N: Tensor, temperature_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies, logits, totals = [], [], [], []
        for rows in _slices(len(states_ND)):
            logits_NV = head(states_ND[rows])
            scaled_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)) / temperature_N[rows, None]
            total_N = scaled_NV.logsumexp(-1)
            chosen_N = scaled_NV.gather(1, target_N[rows, None])[:, 0]
            probability_NV = (scaled_NV - total_N[:, None]).exp_()
            logprobs.append(chosen_N - total_N)
            entropies.append(total_N - probability_NV.mul_(scaled_NV).sum(-1))
            if ctx.needs_input_grad[0]:
                logits.append(logits_NV)
                totals.append(total_N)
        ctx.head, ctx.logits, ctx.totals = head, logits, totals
        ctx.target_N, ctx.temperature_N = target_N, temperature_N
        entropy_N = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy_N)
        return torch.cat(logprobs), entropy_N

    @staticmethod
    def backward(ctx: Any, upper_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        found = []
        for place, rows in enumerate(_slices(len(upper_N))):
            logits_NV, ctx.logits[place] = ctx.logits[place], None
            heat_N1, slope_N1 = ctx.temperature_N[rows, None], upper_N[rows, None]
            scaled_NV = logits_NV.to(ctx.totals[place].dtype) / heat_N1
            # The gradient of a log-probability: one at the target minus the probabilities.
            slope_NV = scaled_NV.sub_(ctx.totals[place][:, None]).exp_().mul_(-slope_N1 / heat_N1)
            slope_NV.scatter_add_(1, ctx.target_N[rows, None], slope_N1 / heat_N1)
            found.append(ctx.head.backward(slope_NV.to(logits_NV.dtype)))
        return torch.cat(found), None, None, None


def _slices(count: int) -> list[slice]:
    return [slice(start, start + LOGIT_ROWS) for start in range(0, count, LOGIT_ROWS)]
