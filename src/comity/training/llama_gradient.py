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
from comity.engines.llama_pass import Turn, project, slice_rows
from comity.engines.packing import Packed, pack
from comity.training.collate import MicroBatch

LOGIT_ROWS = 256
"""Most trained tokens whose logits exist in float32 at once."""


@dataclass(frozen=True)
class _Kept:
    """What one layer keeps for the way back; queries are turned and scaled, keys turned. Gates go by slices of rows."""

    states_TD: Tensor
    query_HTd: Tensor
    key_KTd: Tensor
    value_KTd: Tensor
    found_TD: Tensor
    middle_TD: Tensor
    gates: tuple[tuple[Tensor, Tensor], ...]
    """The gate's and the other map's results (R, I) of each slice."""


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
        turn = llama.rotate(packed.position_T)
        for layer in llama.layers:
            states_TD = _forward_layer(llama, layer, packed, states_TD, turn, kept)
        last_ND = states_TD[place_N]
        ctx.llama, ctx.packed, ctx.place_N, ctx.kept, ctx.turn, ctx.last_ND = (
            llama,
            packed,
            place_N,
            kept,
            turn,
            last_ND,
        )
        return llama.norm_states(last_ND, llama.norm)

    @staticmethod
    def backward(ctx: Any, upper_ND: Tensor) -> tuple[Tensor | None, ...]:
        llama, kept = ctx.llama, ctx.kept
        found: list[list[Tensor]] = []
        wide = torch.promote_types(upper_ND.dtype, torch.float32)
        gradient_TD = torch.zeros(len(ctx.packed.ids_T), upper_ND.shape[1], dtype=wide)
        last_ND = _norm_backward(ctx.last_ND, llama.norm, llama.epsilon, upper_ND)[1]
        gradient_TD.index_add_(0, ctx.place_N, last_ND)
        for number in reversed(range(len(llama.layers))):
            layer_kept, kept[number] = kept[number], None
            found.append(_backward_layer(llama, llama.layers[number], ctx.packed, layer_kept, gradient_TD, ctx.turn))
        return (None, None, None, *(gradient for layer in reversed(found) for gradient in layer))


def _forward_layer(
    llama: Llama, layer: LlamaLayer, packed: Packed, states_TD: Tensor, turn: Turn, kept: list[_Kept] | None
) -> Tensor:
    heads = project(llama, layer, states_TD, turn)
    found_TD = attend(*heads, packed)
    middle_TD, result_TD, gates = torch.empty_like(states_TD), torch.empty_like(states_TD), []
    for rows in slice_rows(len(states_TD)):
        middle_RD = layer.output.plus(found_TD[rows], states_TD[rows])
        normed_RD = llama.norm_states(middle_RD, layer.mlp_norm)
        gate_RI, up_RI = layer.gate(normed_RD), layer.up(normed_RD)
        result_TD[rows] = layer.down.plus(functional.silu(gate_RI).mul_(up_RI), middle_RD)
        if kept is not None:
            middle_TD[rows] = middle_RD
            gates.append((gate_RI, up_RI))
    if kept is not None:
        kept.append(_Kept(states_TD, *heads, found_TD, middle_TD, tuple(gates)))
    return result_TD


def _backward_layer(
    llama: Llama, layer: LlamaLayer, packed: Packed, kept: _Kept, gradient_TD: Tensor, turn: Turn
) -> list[Tensor]:
    # Changes gradient_TD, that of the states after the layer, into that of the states before it.
    query, key, value, output, gate, up, down = sums = [_AdapterSums.create(adapter) for adapter in layer.adapted]
    found_TD = torch.empty_like(kept.found_TD)
    for rows, (gate_RI, up_RI) in zip(slice_rows(len(found_TD)), kept.gates, strict=True):
        upper_RD = gradient_TD[rows].to(found_TD.dtype)
        active_RI = functional.silu(gate_RI)
        down.add(active_RI * up_RI, upper_RD)
        inner_RI = layer.down.backward(upper_RD)
        up_slope_RI = active_RI.mul_(inner_RI)
        gate_slope_RI = torch.ops.aten.silu_backward(inner_RI.mul_(up_RI), gate_RI)
        normed_RD, lower_RD = _norm_backward(
            kept.middle_TD[rows], layer.mlp_norm, llama.epsilon,
            layer.gate.backward(gate_slope_RI), layer.up.backward(up_slope_RI),
        )  # fmt: skip
        up.add(normed_RD, up_slope_RI)
        gate.add(normed_RD, gate_slope_RI)
        upper_RD = gradient_TD[rows].add_(lower_RD).to(found_TD.dtype)
        output.add(kept.found_TD[rows], upper_RD)
        found_TD[rows] = layer.output.backward(upper_RD)
    query_THd, key_KTd, value_KTd = attend_backward(kept.query_HTd, kept.key_KTd, kept.value_KTd, found_TD, packed)
    for rows in slice_rows(len(found_TD)):
        turned_RHd = torch.cat((query_THd[rows] * llama.scale, key_KTd[:, rows].transpose(0, 1)), 1)
        # Turning back is turning by the opposite angle.
        turned_RHd = rotate_heads(turned_RHd, turn[0][rows], -turn[1][rows])
        qkv_RO = torch.cat((turned_RHd, value_KTd[:, rows].transpose(0, 1)), 1).flatten(1)
        normed_RD, lower_RD = _norm_backward(
            kept.states_TD[rows], layer.attention_norm, llama.epsilon, layer.qkv.backward(qkv_RO)
        )
        gradient_TD[rows] += lower_RD
        sizes = [heads * turned_RHd.shape[2] for heads in (llama.heads, llama.key_heads, llama.key_heads)]
        for part, slope_RO in zip((query, key, value), torch.split(qkv_RO, sizes, 1), strict=True):
            part.add(normed_RD, slope_RO)
    return [gradient for item in sums for gradient in item.gradients()]


def _norm_backward(states_TD: Tensor, weight_D: Tensor, epsilon: float, *upper: Tensor) -> tuple[Tensor, Tensor]:
    # Normed states again, and the gradient before the norm, in float32 or better; gradients of several readers add up.
    wide = torch.promote_types(states_TD.dtype, torch.float32)
    unit_TD = states_TD.to(wide)
    inverse_T1 = torch.rsqrt(unit_TD.square().mean(-1, keepdim=True) + epsilon)
    unit_TD = unit_TD * inverse_T1
    slope_TD = sum(upper[1:], upper[0].to(wide)) * weight_D
    along_T1 = (slope_TD * unit_TD).mean(-1, keepdim=True)
    lower_TD = slope_TD.addcmul_(unit_TD, along_T1, value=-1).mul_(inverse_T1)
    return unit_TD.to(states_TD.dtype) * weight_D, lower_TD


@dataclass
class _AdapterSums:
    """The gradients of one map's adapter, added up over slices of rows in float32 or better."""

    adapter: LoraLayer | None
    down_RI: Tensor | None = None
    up_RO: Tensor | None = None

    @staticmethod
    def create(adapter: LoraLayer | None) -> "_AdapterSums":
        if adapter is None:
            return _AdapterSums(None)
        down_RI, up_OR = _weights_of(adapter)
        wide = torch.promote_types(down_RI.dtype, torch.float32)
        return _AdapterSums(adapter, torch.zeros_like(down_RI, dtype=wide), torch.zeros(up_OR.shape[::-1], dtype=wide))

    def add(self, input_TI: Tensor, upper_TO: Tensor) -> None:
        """Add what some rows contribute, given the map's input and its result's gradient."""
        if self.down_RI is not None and self.up_RO is not None:
            down_RI, up_OR = _weights_of(self.adapter)
            self.down_RI += (upper_TO @ up_OR).t() @ input_TI
            self.up_RO += functional.linear(input_TI, down_RI).t() @ upper_TO

    def gradients(self) -> list[Tensor]:
        """Return the gradients of A and B; nothing for a map without an adapter."""
        if self.adapter is None or self.down_RI is None or self.up_RO is None:
            return []
        scale = self.adapter.scaling[self.adapter.active_adapters[0]]
        return [self.down_RI * scale, self.up_RO.t() * scale]


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
