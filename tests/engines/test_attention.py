"""Attention in blocks against torch's own, row by row, with its gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from comity.engines import attention
from comity.engines.attention import attend, attend_backward
from comity.engines.packing import pack

HEADS, KEY_HEADS, WIDTH = 6, 2, 8


def build(beginnings, rows):
    """Return packed sequences of given lengths: rows are (owner, length)."""
    ids = [torch.arange(size) for size in beginnings]
    return pack(ids, [owner for owner, _ in rows], [torch.arange(size) for _, size in rows])


def draw_states(packed):
    generator = torch.Generator().manual_seed(len(packed.ids_T))
    shapes = [(HEADS, WIDTH), (KEY_HEADS, WIDTH), (KEY_HEADS, WIDTH)]
    return [
        torch.randn(heads, len(packed.ids_T), width, generator=generator, dtype=torch.float64).requires_grad_()
        for heads, width in shapes
    ]


def attend_row_by_row(states, packed):
    """Return the result of every token that a row holds; a beginning's tokens are the same in all its rows."""
    query, key, value = states
    result = torch.zeros(query.shape[1], HEADS, WIDTH, dtype=torch.float64)
    for places in packed.places:
        parts = [item[:, places] for item in (query, key, value)]
        found = functional.scaled_dot_product_attention(
            *(part[None] for part in parts), is_causal=True, scale=1.0, enable_gqa=True
        )[0]
        result = result.index_copy(0, places, found.transpose(0, 1))
    return result.flatten(1)


@st.composite
def layouts(draw):
    beginnings = draw(st.lists(st.integers(1, 20), max_size=3))
    rows = draw(st.lists(st.tuples(st.integers(-1, len(beginnings) - 1), st.integers(1, 25)), min_size=1, max_size=7))
    owned = {owner for owner, _ in rows}
    rows += [(number, 1) for number in range(len(beginnings)) if number not in owned]
    return build(beginnings, rows)


@given(layouts())
def test_every_token_stands_once_and_every_row_is_whole(packed):
    queries = torch.cat([block.place_N for block in packed.blocks])
    assert sorted(queries.tolist()) == list(range(len(packed.ids_T)))
    for row, places in enumerate(packed.places):
        assert packed.position_T[places].tolist() == list(range(len(places)))
        own = [place for place in places.tolist() if all(place not in item for item in packed.beginnings)]
        assert own[0] == packed.first_of(row)


@pytest.mark.parametrize("scores", [attention.SCORES, 64])
@given(packed=layouts())
def test_attention_and_its_gradients_are_torchs(scores, packed):
    states = draw_states(packed)
    expected = attend_row_by_row(states, packed)
    upper = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = torch.autograd.grad(expected, states, upper)
    plain = [item.detach() for item in states]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "SCORES", scores)
        found = attend(*plain, packed)
        query, key, value = attend_backward(*plain, upper, packed)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)
    for gradient, other in zip((query.transpose(0, 1), key, value), wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-12)
