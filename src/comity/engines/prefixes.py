"""Group token sequences that begin alike, so that a shared beginning is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

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

    Sorted neighbours join a group while the shared beginning stays at least half of what the group shared so far;
    a row that shares too little stands alone with length 0.
    """
    order = sorted(range(len(sequences)), key=lambda i: (sequences[i].tolist(), i))
    groups: list[PrefixGroup] = []
    rows: list[int] = []
    length = 0
    for index in order:
        shared = min(_common(sequences[rows[0]], sequences[index]), limits[index]) if rows else 0
        shared = min(shared, length) if rows else 0
        if rows and shared >= SHORTEST and (len(rows) == 1 or 2 * shared >= length):
            rows.append(index)
            length = shared
            continue
        _close(groups, rows, length)
        rows, length = [index], limits[index]
    _close(groups, rows, length)
    return groups


def _close(groups: list[PrefixGroup], rows: list[int], length: int) -> None:
    if rows:
        groups.append(PrefixGroup(length if len(rows) > 1 else 0, tuple(rows)))


def _common(first: NDArray[np.int32], second: NDArray[np.int32]) -> int:
    size = min(len(first), len(second))
    different = np.nonzero(first[:size] != second[:size])[0]
    return int(different[0]) if len(different) else size
