"""Group token sequences that begin alike, so that a shared beginning is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SHORTEST = 24
"""A shared beginning below this many tokens is not worth a pass of its own."""


@dataclass(frozen=True)
class PrefixGroup:
    """Rows (indices) whose first `length` tokens are the same."""

    length: int
    rows: tuple[int, ...]


def group_prefixes(sequences: Sequence[NDArray[np.int32]], limits: Sequence[int]) -> list[PrefixGroup]:
    """Partition sequences into groups that share a beginning of at most `limits[i]` tokens in row i.

    Of all partitions of the sorted sequences into neighbours it is the one that spares the most tokens: a group of n
    rows spares its beginning n - 1 times. A row that shares too little stands alone with length 0.
    """
    order = sorted(range(len(sequences)), key=lambda i: (sequences[i].tolist(), i))
    shared = [
        min(_common(sequences[one], sequences[other]), limits[one], limits[other]) for one, other in pairwise(order)
    ]
    _, parts = _partition(shared, 0, len(order))
    return [PrefixGroup(length, tuple(order[first:last])) for first, last, length in parts]


def _partition(shared: Sequence[int], first: int, last: int) -> tuple[int, list[tuple[int, int, int]]]:
    # The tokens that the best partition of the rows from `first` to `last` spares, and its parts with their lengths.
    # What all rows share is the least that neighbours share; a partition is only better if it parts there.
    if last - first < 2:
        return 0, [(first, last, 0)] * (last - first)
    least = min(shared[first : last - 1])
    cuts = [first, *(place + 1 for place in range(first, last - 1) if shared[place] == least), last]
    found = [_partition(shared, begin, end) for begin, end in pairwise(cuts)]
    saved = sum(tokens for tokens, _ in found)
    together = least * (last - first - 1)
    if least >= SHORTEST and together >= saved:
        return together, [(first, last, least)]
    return saved, [part for _, parts in found for part in parts]


def _common(first: NDArray[np.int32], second: NDArray[np.int32]) -> int:
    size = min(len(first), len(second))
    different = np.nonzero(first[:size] != second[:size])[0]
    return int(different[0]) if len(different) else size
