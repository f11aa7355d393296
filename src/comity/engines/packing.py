"""Token sequences laid end to end without padding; a shared beginning stands once, before the rows that go on from it.

Linear maps then work on real tokens only. Attention goes by blocks: rows of the same beginning and of like length, each
with its own keys, the beginning's first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from comity.engines.prefixes import group_prefixes

LIKE_LENGTH = 0.75
"""A row joins a block when it has at least this share of the longest row's tokens."""
BLOCK_ROWS = 16


@dataclass(frozen=True)
class Block:
    """Rows whose attention is computed together. R rows, S queries, L = `shared` + S keys.

    Entries are places in the packed sequence. Rows are padded on the right with their last place; a padded query's
    result is thrown away, a padded key lies behind every real query.
    """

    query_RS: Tensor
    key_RL: Tensor
    shared: int
    real_N: Tensor
    """Which of the R x S queries are real, in order."""
    place_N: Tensor
    """Where these stand in the packed sequence."""


@dataclass(frozen=True)
class Packed:
    """Sequences end to end: ids and positions (T,), the blocks of attention, and where each row's tokens stand."""

    ids_T: Tensor
    position_T: Tensor
    blocks: tuple[Block, ...]
    places: tuple[Tensor, ...]
    """For each row the places (T_row,) of its beginning and its remainder."""
    owners: tuple[int, ...]
    """For each row the number of its beginning, -1 for none."""
    beginnings: tuple[Tensor, ...]
    """The places (P,) of each beginning."""

    def first_of(self, row: int) -> int:
        """Return the place of the first token of a row's remainder."""
        owner = self.owners[row]
        return int(self.places[row][len(self.beginnings[owner]) if owner >= 0 else 0])


def pack(beginnings: Sequence[Tensor], owners: Sequence[int], remainders: Sequence[Tensor]) -> Packed:
    """Return the sequences packed; `owners` says which beginning each remainder goes on from, -1 for none.

    Ids are one-dimensional; remainders have a token at least, beginnings too.
    """
    ids, positions, blocks = [], [], []
    begins, place = [], 0
    for beginning in beginnings:
        size = len(beginning)
        begins.append((place, size))
        ids.append(beginning)
        positions.append(torch.arange(size))
        blocks.append(_block([(place, size)], 0, 0))
        place += size
    order = sorted(range(len(remainders)), key=lambda row: (owners[row], -len(remainders[row]), row))
    first = [0] * len(remainders)
    bundle: list[int] = []
    for row in order:
        if bundle and not _fits(bundle, row, owners, remainders):
            blocks.append(_bundle(bundle, first, owners, begins, remainders))
            bundle = []
        size, shared = len(remainders[row]), begins[owners[row]][1] if owners[row] >= 0 else 0
        ids.append(remainders[row])
        positions.append(torch.arange(shared, shared + size))
        first[row] = place
        place += size
        bundle.append(row)
    if bundle:
        blocks.append(_bundle(bundle, first, owners, begins, remainders))
    places = []
    for row, remainder in enumerate(remainders):
        own = torch.arange(first[row], first[row] + len(remainder))
        begin, shared = begins[owners[row]] if owners[row] >= 0 else (0, 0)
        places.append(torch.cat((torch.arange(begin, begin + shared), own)))
    beginning_places = tuple(torch.arange(begin, begin + size) for begin, size in begins)
    return Packed(torch.cat(ids), torch.cat(positions), tuple(blocks), tuple(places), tuple(owners), beginning_places)


def pack_shared(sequences: Sequence[NDArray[np.int32]]) -> Packed:
    """Return the sequences packed, with the beginnings that they share once; the last token is never part of one."""
    groups = group_prefixes(sequences, [len(sequence) - 1 for sequence in sequences])
    shared = [group for group in groups if group.length]
    owner = {row: place for place, group in enumerate(shared) for row in group.rows}
    tensors = [torch.from_numpy(sequence.astype(np.int64)) for sequence in sequences]
    beginnings = [tensors[group.rows[0]][: group.length] for group in shared]
    owners = [owner.get(row, -1) for row in range(len(tensors))]
    cuts = [shared[place].length if place >= 0 else 0 for place in owners]
    return pack(beginnings, owners, [ids[cut:] for ids, cut in zip(tensors, cuts, strict=True)])


def _fits(bundle: Sequence[int], row: int, owners: Sequence[int], remainders: Sequence[Tensor]) -> bool:
    longest = len(remainders[bundle[0]])
    like = len(remainders[row]) >= LIKE_LENGTH * longest
    return owners[row] == owners[bundle[0]] and like and len(bundle) < BLOCK_ROWS


def _bundle(
    rows: Sequence[int],
    first: Sequence[int],
    owners: Sequence[int],
    begins: Sequence[tuple[int, int]],
    remainders: Sequence[Tensor],
) -> Block:
    begin, shared = begins[owners[rows[0]]] if owners[rows[0]] >= 0 else (0, 0)
    return _block([(first[row], len(remainders[row])) for row in rows], begin, shared)


def _block(rows: Sequence[tuple[int, int]], begin: int, shared: int) -> Block:
    starts_R1 = torch.tensor([[start] for start, _ in rows])
    sizes_R1 = torch.tensor([[size] for _, size in rows])
    offset_1S = torch.arange(int(sizes_R1.max()))[None]
    query_RS = starts_R1 + torch.minimum(offset_1S, sizes_R1 - 1)
    beginning_RP = torch.arange(begin, begin + shared).expand(len(rows), shared)
    real_N = (offset_1S < sizes_R1).flatten().nonzero()[:, 0]
    return Block(query_RS, torch.cat((beginning_RP, query_RS), 1), shared, real_N, query_RS.flatten()[real_N])
