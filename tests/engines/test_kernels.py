"""Our own kernels against the formulas, and what happens where they cannot be compiled."""

import pytest
import torch
from torch.nn import functional

from comity.engines.kernels import DTYPES, ROOM, Batch, compile_kernels, open_kernels

ROWS, BEGINNINGS, SHARED_ROOM, OWN_ROOM = 5, 2, 64, 32


@pytest.fixture(params=list(DTYPES), ids=str)
def kernels(request):
    """Return the kernels of each kind of numbers, and that kind."""
    found = open_kernels(request.param)
    if found is None:
        pytest.skip("no C compiler")
    return found, request.param


def draw(generator, dtype, *sizes):
    return torch.randn(sizes, generator=generator).to(dtype)


@pytest.mark.parametrize(("width", "heads", "key_heads"), [(16, 4, 4), (48, 8, 2), (64, 9, 3), (128, 5, 1)])
def test_attention_is_the_softmax_over_what_each_row_sees(kernels, width, heads, key_heads):
    library, dtype = kernels
    generator = torch.Generator().manual_seed(0)
    qkv_BHd = draw(generator, dtype, ROWS, heads + 2 * key_heads, width)
    cos_B1d, sin_B1d = draw(generator, dtype, ROWS, 1, width), draw(generator, dtype, ROWS, 1, width)
    shared_key, shared_value = (draw(generator, dtype, key_heads, BEGINNINGS, SHARED_ROOM, width) for _ in range(2))
    key, value = (draw(generator, dtype, key_heads, ROWS, OWN_ROOM, width) for _ in range(2))
    # The third row goes on from no beginning; the last but one fills its room with the new token.
    owner, shared, own = (
        torch.tensor([1, 0, 0, 1, 1]),
        torch.tensor([64, 33, 0, 1, 50]),
        torch.tensor([1, 7, 12, 32, 17]),
    )
    batch = Batch(
        rows=ROWS, heads=heads, key_heads=key_heads, width=width, beginnings=BEGINNINGS, shared_room=SHARED_ROOM,
        room=OWN_ROOM, owner=owner.data_ptr(), shared=shared.data_ptr(), own=own.data_ptr(), scale=0.25,
    )  # fmt: skip
    columns, rows = key.mT.contiguous(), value.clone()
    found_BD = library.attend_rows(
        batch, qkv_BHd, (cos_B1d, sin_B1d), (shared_key.mT.contiguous(), shared_value), (columns, rows)
    )
    assert found_BD.dtype == dtype
    swapped_BHd = torch.cat((qkv_BHd[..., width // 2 :], qkv_BHd[..., : width // 2]), -1)
    turned_BHd = qkv_BHd.double() * cos_B1d + swapped_BHd.double() * sin_B1d
    for row in range(ROWS):
        place = int(own[row]) - 1
        for head in range(key_heads):
            key[head, row, place] = turned_BHd[row, heads + head].to(dtype)
            value[head, row, place] = qkv_BHd[row, heads + key_heads + head]
        for head in range(heads):
            at = head * key_heads // heads
            beginning = int(owner[row]), slice(0, int(shared[row]))
            keys = torch.cat((shared_key[at][beginning], key[at, row, : place + 1])).double()
            values = torch.cat((shared_value[at][beginning], value[at, row, : place + 1])).double()
            expected = torch.softmax(0.25 * keys @ turned_BHd[row, head], 0) @ values
            found = found_BD[row, head * width : (head + 1) * width].double()
            torch.testing.assert_close(found, expected, rtol=2**-8, atol=1e-2 if dtype == torch.bfloat16 else 1e-5)
    torch.testing.assert_close(columns.mT, key, rtol=2**-7, atol=1e-6)  # a product may be rounded the other way
    assert torch.equal(rows, value)


@pytest.mark.parametrize("rows", [1, 3, 300])  # 300 rows are spread over the threads
def test_norms_are_those_of_torch(kernels, rows):
    library, dtype = kernels
    generator = torch.Generator().manual_seed(1)
    states_TD, weight_D = draw(generator, dtype, rows, 576) * 3, draw(generator, dtype, 576)
    expected = functional.rms_norm(states_TD.double(), (576,), weight_D.double(), 1e-5)
    found = library.norm_states(states_TD, weight_D, 1e-5)
    torch.testing.assert_close(found.double(), expected, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    assert torch.equal(library.norm_states(states_TD.T.contiguous().T, weight_D, 1e-5), found)


def test_rooms_are_what_the_kernels_read_at_a_time():
    assert OWN_ROOM % ROOM == SHARED_ROOM % ROOM == 0


def test_a_library_is_compiled_once(monkeypatch, tmp_path):
    if open_kernels(torch.float32) is None:
        pytest.skip("no C compiler")
    monkeypatch.setenv("COMITY_CACHE", str(tmp_path))
    file = compile_kernels(torch.float32)
    made = file.stat().st_mtime_ns
    assert compile_kernels(torch.float32) == file
    assert file.stat().st_mtime_ns == made
    assert list((tmp_path / "kernels").iterdir()) == [file]  # no scratch folder is left


def test_what_cannot_be_compiled_is_told_and_left_to_torch(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("COMITY_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    assert open_kernels.__wrapped__(torch.float32) is None
    assert "own kernels cannot be compiled (Command" in caplog.text
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_kernels.__wrapped__(torch.bfloat16) is None
    assert "own kernels cannot be compiled (no C compiler is on the path): install gcc" in caplog.text
    assert list((tmp_path / "kernels").iterdir()) == []


def test_kernels_can_be_switched_off(monkeypatch, caplog):
    monkeypatch.setenv("COMITY_KERNELS", "off")
    assert open_kernels.__wrapped__(torch.bfloat16) is None
    assert open_kernels(torch.float64) is None
    assert caplog.text == ""
