"""Grouping of sequences by shared beginnings: hand-made cases and properties."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from comity.engines.prefixes import SHORTEST, PrefixGroup, group_prefixes


def sequence(*parts):
    """Return the parts in a row; a number n means the tokens 0 ... n-1."""
    return np.concatenate([np.arange(p) if isinstance(p, int) else np.array(p) for p in parts]).astype(np.int32)


def test_two_rows_share_their_common_beginning():
    rows = [sequence(30, [100, 101]), sequence(30, [200])]
    assert group_prefixes(rows, [31, 30]) == [PrefixGroup(30, (0, 1))]


def test_limit_of_either_row_cuts_the_beginning():
    rows = [sequence(30, [100, 101]), sequence(30, [200])]
    assert group_prefixes(rows, [25, 30]) == [PrefixGroup(25, (0, 1))]
    assert group_prefixes(rows, [30, 26]) == [PrefixGroup(26, (0, 1))]


def test_a_short_beginning_is_not_shared():
    rows = [sequence(SHORTEST - 1, [100]), sequence(SHORTEST - 1, [200])]
    assert group_prefixes(rows, [99, 99]) == [PrefixGroup(0, (0,)), PrefixGroup(0, (1,))]
    rows = [sequence(SHORTEST, [100]), sequence(SHORTEST, [200])]
    assert group_prefixes(rows, [99, 99]) == [PrefixGroup(SHORTEST, (0, 1))]


def test_a_row_that_would_halve_the_beginning_stands_apart():
    # Rows 0 and 1 share 100 tokens, row 2 only 40 with them: 2 * 40 < 100.
    rows = [sequence(100, [500]), sequence(100, [600]), sequence(40, [700])]
    assert group_prefixes(rows, [100, 100, 40]) == [PrefixGroup(100, (0, 1)), PrefixGroup(0, (2,))]
    # Row 2 shares 60: 2 * 60 >= 100, so it joins and all share 60.
    rows[2] = sequence(60, [700])
    assert group_prefixes(rows, [100, 100, 60]) == [PrefixGroup(60, (0, 1, 2))]


def test_equal_rows_share_up_to_their_limit():
    rows = [sequence(40), sequence(40), sequence(40)]
    assert group_prefixes(rows, [39, 39, 39]) == [PrefixGroup(39, (0, 1, 2))]


def test_nothing_gives_nothing():
    assert group_prefixes([], []) == []


@st.composite
def families(draw):
    """Return sequences out of two families with common beginnings of any length, and limits below their lengths."""
    tokens = st.lists(st.integers(0, 3), min_size=1, max_size=6)
    rows, limits = [], []
    for _ in range(draw(st.integers(1, 8))):
        family, size = draw(st.integers(0, 1)), draw(st.integers(0, 70))
        row = np.array([family + 10] * size + draw(tokens), np.int32)
        rows.append(row)
        limits.append(draw(st.integers(0, len(row) - 1)))
    return rows, limits


@given(families())
def test_groups_partition_the_rows_and_really_share(drawn):
    rows, limits = drawn
    groups = group_prefixes(rows, limits)
    assert sorted(row for group in groups for row in group.rows) == list(range(len(rows)))
    for group in groups:
        assert (group.length == 0) == (len(group.rows) == 1)
        if group.length:
            assert group.length >= SHORTEST
        for row in group.rows:
            assert group.length <= limits[row]
            assert rows[row][: group.length].tolist() == rows[group.rows[0]][: group.length].tolist()
