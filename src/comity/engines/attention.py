"""Causal attention of packed sequences in plain products, forward and backward.

torch's fused attention does 40 to 110 GFLOP/s in bfloat16 on a processor without AMX, its products do 380. So the
scores are written down, for as many queries at a time as fit into the processor's cache.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from comity.engines.packing import Block, Packed

SCORES = 2**21
"""About how many scores are written down at a time."""
LONG = 512
"""Rows of more queries are attended in spans of half as many."""


def attend(query_HTd: Tensor, key_KTd: Tensor, value_KTd: Tensor, packed: Packed) -> Tensor:
    """Return the attention's result (T, H x d); queries are scaled already. H is a multiple of K."""
    result_THd = query_HTd.new_empty(query_HTd.shape[1], query_HTd.shape[0], query_HTd.shape[2])
    for block in packed.blocks:
        query_KRGSd, key_ELd, value_ELd = _gather(query_HTd, key_KTd, value_KTd, block)
        found_KRGSd = torch.empty_like(query_KRGSd)
        found_EGSd, query_EGSd = found_KRGSd.flatten(0, 1), query_KRGSd.flatten(0, 1)
        for some, span in _parts(query_KRGSd, block):
            rows_EGQd, seen = query_EGSd[some, :, span], slice(0, block.shared + span.stop)
            weights_EQL = _weights(rows_EGQd.flatten(1, 2), key_ELd[some, seen], rows_EGQd.shape[1])
            found_EGSd[some, :, span] = torch.bmm(weights_EQL, value_ELd[some, seen]).view(rows_EGQd.shape)
        _scatter(result_THd, found_KRGSd, block)
    return result_THd.flatten(1)


def attend_backward(
    query_HTd: Tensor, key_KTd: Tensor, value_KTd: Tensor, gradient_TD: Tensor, packed: Packed
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values, given the result's; weights are computed again."""
    heads, length, width = query_HTd.shape
    upper_HTd = gradient_TD.view(length, heads, width).transpose(0, 1)
    query_grad_THd = query_HTd.new_empty(length, heads, width)
    # A beginning's keys get gradients of all rows: they add up in float32 (or better).
    wide = torch.promote_types(key_KTd.dtype, torch.float32)
    key_grad_KTd, value_grad_KTd = (torch.zeros(key_KTd.shape, dtype=wide) for _ in range(2))
    for block in packed.blocks:
        query_KRGSd, key_ELd, value_ELd = _gather(query_HTd, key_KTd, value_KTd, block)
        upper_KRGSd = _gather_queries(upper_HTd, len(key_KTd), block)
        _clear_padding(upper_KRGSd, block)
        found_KRGSd = torch.empty_like(query_KRGSd)
        key_sum_ELd, value_sum_ELd = (torch.zeros(key_ELd.shape, dtype=wide) for _ in range(2))
        found_EGSd, query_EGSd, upper_EGSd = (item.flatten(0, 1) for item in (found_KRGSd, query_KRGSd, upper_KRGSd))
        for some, span in _parts(query_KRGSd, block):
            seen = slice(0, block.shared + span.stop)
            rows_EQd, upper_EQd = (item[some, :, span].flatten(1, 2) for item in (query_EGSd, upper_EGSd))
            keys_ELd, values_ELd = key_ELd[some, seen], value_ELd[some, seen]
            weights_EQL = _weights(rows_EQd, keys_ELd, query_EGSd.shape[1])
            value_sum_ELd[some, seen] += torch.bmm(weights_EQL.transpose(1, 2), upper_EQd)
            slope_EQL = torch.bmm(upper_EQd, values_ELd.transpose(1, 2))
            slope_EQL = torch._softmax_backward_data(slope_EQL, weights_EQL, -1, weights_EQL.dtype)
            found_EGSd[some, :, span] = torch.bmm(slope_EQL, keys_ELd).view(found_EGSd[some, :, span].shape)
            key_sum_ELd[some, seen] += torch.bmm(slope_EQL.transpose(1, 2), rows_EQd)
        _scatter(query_grad_THd, found_KRGSd, block)
        _add_keys(key_grad_KTd, key_sum_ELd, block)
        _add_keys(value_grad_KTd, value_sum_ELd, block)
    return query_grad_THd, key_grad_KTd.to(key_KTd.dtype), value_grad_KTd.to(key_KTd.dtype)


def _gather(query_HTd: Tensor, key_KTd: Tensor, value_KTd: Tensor, block: Block) -> tuple[Tensor, Tensor, Tensor]:
    # E = K x R: every key head of every row is one product of the batch.
    rows, length = block.key_RL.shape
    places = block.key_RL.flatten()
    shape = (len(key_KTd) * rows, length, key_KTd.shape[2])
    return (
        _gather_queries(query_HTd, len(key_KTd), block),
        key_KTd.index_select(1, places).view(shape),
        value_KTd.index_select(1, places).view(shape),
    )


def _gather_queries(states_HTd: Tensor, key_heads: int, block: Block) -> Tensor:
    rows, size = block.query_RS.shape
    picked_HNd = states_HTd.index_select(1, block.query_RS.flatten())
    picked_KGRSd = picked_HNd.view(key_heads, -1, rows, size, states_HTd.shape[2])
    return picked_KGRSd.transpose(1, 2).contiguous()


def _parts(query_KRGSd: Tensor, block: Block) -> Iterator[tuple[slice, slice]]:
    # Which rows of the batch and which queries go together. Of long rows the queries are split too: those of one span
    # see no key behind it. Of a slice of keys the product makes a copy first, so short rows are left whole.
    key_heads, rows, group, size, _ = query_KRGSd.shape
    step = size if size <= LONG else LONG // 2
    count = max(1, SCORES // (group * step * (block.shared + size)))
    for start in range(0, size, step):
        for first in range(0, key_heads * rows, count):
            yield slice(first, first + count), slice(start, min(start + step, size))


def _weights(rows_EQd: Tensor, key_ELd: Tensor, group: int) -> Tensor:
    scores_EQL = torch.bmm(rows_EQd, key_ELd.transpose(1, 2))
    count = rows_EQd.shape[1] // group
    if count > 1:
        hidden = torch.ones(count, count, dtype=torch.bool).triu_(1)
        own = scores_EQL.view(len(rows_EQd), -1, count, scores_EQL.shape[2])[..., -count:]
        own.masked_fill_(hidden, -torch.inf)
    return torch.softmax(scores_EQL, -1)


def _scatter(result_THd: Tensor, found_KRGSd: Tensor, block: Block) -> None:
    width = found_KRGSd.shape[-1]
    found_RSHd = found_KRGSd.permute(1, 3, 0, 2, 4).reshape(-1, result_THd.shape[1], width)
    result_THd[block.place_N] = found_RSHd[block.real_N]


def _clear_padding(upper_KRGSd: Tensor, block: Block) -> None:
    rows, size = block.query_RS.shape
    if len(block.real_N) == rows * size:
        return
    padded_RS = torch.ones(rows * size, dtype=torch.bool)
    padded_RS[block.real_N] = False
    upper_KRGSd.masked_fill_(padded_RS.view(1, rows, 1, size, 1), 0)


def _add_keys(total_KTd: Tensor, part_ELd: Tensor, block: Block) -> None:
    rows, length = block.key_RL.shape
    part_KRLd = part_ELd.view(len(total_KTd), rows, length, -1)
    if block.shared:
        begin = int(block.key_RL[0, 0])
        total_KTd[:, begin : begin + block.shared] += part_KRLd[:, :, : block.shared].sum(1)
    own_KNd = part_KRLd[:, :, block.shared :].flatten(1, 2)
    total_KTd[:, block.place_N] += own_KNd[:, block.real_N]
