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


def test_a_row_joins_when_that_spares_more_tokens():
    # Rows 0 and 1 share 100 tokens, row 2 only 40 with them: 2 * 40 < 1 * 100.
    rows = [sequence(100, [500]), sequence(100, [600]), sequence(40, [700])]
    assert group_prefixes(rows, [100, 100, 40]) == [PrefixGroup(100, (0, 1)), PrefixGroup(0, (2,))]
    # Row 2 shares 60: 2 * 60 >= 1 * 100, so it joins and all share 60.
    rows[2] = sequence(60, [700])
    assert group_prefixes(rows, [100, 100, 60]) == [PrefixGroup(60, (0, 1, 2))]


def test_two_families_that_begin_alike_stay_apart():
    # Every family shares 50 + 40 tokens, all four rows 50: 2 * 90 > 3 * 50.
    rows = [sequence(50, [family] * 40, [row]) for family in (60, 70) for row in (80, 90)]
    assert group_prefixes(rows, [90] * 4) == [PrefixGroup(90, (0, 1)), PrefixGroup(90, (2, 3))]
    # With 110 tokens before them it is 2 * 150 < 3 * 110.
    rows = [sequence(110, [family] * 40, [row]) for family in (160, 170) for row in (180, 190)]
    assert group_prefixes(rows, [150] * 4) == [PrefixGroup(110, (0, 1, 2, 3))]


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


def count_spared(groups):
    return sum(group.length * (len(group.rows) - 1) for group in groups)


@given(families())
def test_no_partition_into_neighbours_spares_more(drawn):
    rows, limits = drawn
    order = sorted(range(len(rows)), key=lambda i: (rows[i].tolist(), i))

    def share(part):
        length = min(limits[row] for row in part)
        first = rows[part[0]]
        while any(rows[row][:length].tolist() != first[:length].tolist() for row in part):
            length -= 1
        return length if length >= SHORTEST else 0

    best = [0]  # of the first n rows
    for end in range(1, len(order) + 1):
        best.append(max(best[begin] + share(order[begin:end]) * (end - begin - 1) for begin in range(end)))
    assert count_spared(group_prefixes(rows, limits)) == best[-1]


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
