"""Attention of one new token a row to the keys so far: by our own kernel, or in plain products where there is none."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from comity.engines.kernels import ROOM, WIDTH, Batch, Kernels, Pair
from comity.engines.llama import Llama, rotate_heads
from comity.engines.llama_pass import Turn
from comity.engines.packing import Packed


class RowAttention(Protocol):
    """The rows of a batch with their keys and values of every layer; those of a shared beginning stand once."""

    def keep_layer(self, number: int, key_KTd: Tensor, value_KTd: Tensor) -> None:
        """Take in the keys and values of the packed prompts, layer after layer."""

    def advance(self) -> None:
        """Make place for one more token of every row; call it before each step."""

    def attend(self, number: int, qkv_BHd: Tensor, turn: Turn) -> Tensor:
        """Take in the new token's queries, keys and values of a layer and return what is found (B, H x d)."""

    def keep_rows(self, kept: Tensor) -> None:
        """Let the other rows go."""


def open_rows(llama: Llama, packed: Packed, new_tokens: int) -> RowAttention:
    """Return the rows of packed prompts with room for new tokens."""
    if llama.kernels is not None and llama.head_width % WIDTH == 0:
        return KernelRows(llama, llama.kernels, packed, new_tokens)
    return ProductRows(llama, packed, new_tokens)


class KernelRows:
    """Rows whose keys and values our kernel reads in place; a row's own begin at the first place of its buffer."""

    def __init__(self, llama: Llama, kernels: Kernels, packed: Packed, new_tokens: int) -> None:
        self.llama, self.kernels = llama, kernels
        self.shared_B, self.own_B = _count(packed)
        self.owner_B = torch.tensor(packed.owners).clamp(min=0)
        self.beginning_CP = pad_sequence(list(packed.beginnings) or [torch.zeros(0).long()], True)
        remainders = [places[int(cut) :] for places, cut in zip(packed.places, self.shared_B, strict=True)]
        self.own_BS = pad_sequence(remainders, True)
        self.room = _round_up(self.own_BS.shape[1] + new_tokens)
        self.shared: list[Pair] = []
        self.own: list[Pair] = []
        self.batch = self._describe()

    def keep_layer(self, number: int, key_KTd: Tensor, value_KTd: Tensor) -> None:
        """Take in the keys and values of the packed prompts."""
        shared_room = _round_up(self.beginning_CP.shape[1])
        self.shared.append(
            (
                _spread(_pick(key_KTd, self.beginning_CP).mT, shared_room, -1),
                _spread(_pick(value_KTd, self.beginning_CP), shared_room, -2),
            )
        )
        self.own.append(
            (
                _spread(_pick(key_KTd, self.own_BS).mT, self.room, -1),
                _spread(_pick(value_KTd, self.own_BS), self.room, -2),
            )
        )

    def advance(self) -> None:
        """Make place for one more token of every row."""
        self.own_B += 1  # in place: the kernel reads it

    def attend(self, number: int, qkv_BHd: Tensor, turn: Turn) -> Tensor:
        """Take in the new token's queries, keys and values of a layer and return what is found (B, H x d)."""
        return self.kernels.attend_rows(self.batch, qkv_BHd, turn, self.shared[number], self.own[number])

    def keep_rows(self, kept: Tensor) -> None:
        """Let the other rows go."""
        _keep_rows(self.own, kept)
        self.owner_B, self.shared_B, self.own_B = self.owner_B[kept], self.shared_B[kept], self.own_B[kept]
        self.batch = self._describe()

    def _describe(self) -> Batch:
        llama, (beginnings, shared) = self.llama, self.beginning_CP.shape
        return Batch(
            rows=len(self.own_B), heads=llama.heads, key_heads=llama.key_heads, width=llama.head_width,
            beginnings=beginnings, shared_room=_round_up(shared), room=self.room,
            owner=self.owner_B.data_ptr(), shared=self.shared_B.data_ptr(), own=self.own_B.data_ptr(),
            scale=llama.scale,
        )  # fmt: skip


class ProductRows:
    """Rows in plain products: all rows of a beginning are attended to it in one.

    Keys and values of a beginning are (K, C, P, d). A row's own (K, B, S, d) end at the same place as everybody's, so
    that a step writes one column.
    """

    def __init__(self, llama: Llama, packed: Packed, new_tokens: int) -> None:
        self.llama, self.new_tokens = llama, new_tokens
        self.owners = list(packed.owners)
        shared_B, own_B = _count(packed)
        self.end = int(own_B.max())
        self.own_BS = torch.stack(
            [_last(row, int(size), self.end) for row, size in zip(packed.places, own_B, strict=True)]
        )
        self.beginning_CP = pad_sequence(list(packed.beginnings) or [torch.zeros(0).long()], True)
        self.shared_size = self.beginning_CP.shape[1]
        self.shared: list[Pair] = []
        self.own: list[Pair] = []
        self.mask_BL = self._mask(shared_B, own_B)
        self._arrange()

    def keep_layer(self, number: int, key_KTd: Tensor, value_KTd: Tensor) -> None:
        """Take in the keys and values of the packed prompts."""
        self.shared.append((_pick(key_KTd, self.beginning_CP), _pick(value_KTd, self.beginning_CP)))
        room = self.end + self.new_tokens
        self.own.append(
            (_spread(_pick(key_KTd, self.own_BS), room, -2), _spread(_pick(value_KTd, self.own_BS), room, -2))
        )

    def advance(self) -> None:
        """Make place for one more token of every row."""
        self.mask_BL[:, self.shared_size + self.end] = 0
        self.end += 1

    def attend(self, number: int, qkv_BHd: Tensor, turn: Turn) -> Tensor:
        """Take in the new token's queries, keys and values of a layer and return what is found (B, H x d)."""
        (shared_key_KCPd, shared_value_KCPd), (key_KBSd, value_KBSd) = self.shared[number], self.own[number]
        heads, rows, _, width = key_KBSd.shape
        query_heads = self.llama.heads
        turned_BHd = rotate_heads(qkv_BHd[:, : query_heads + heads], *turn)
        key_KBSd[:, :, self.end - 1] = turned_BHd[:, query_heads:].transpose(0, 1)
        value_KBSd[:, :, self.end - 1] = qkv_BHd[:, query_heads + heads :].transpose(0, 1)
        query_KBGd = (turned_BHd[:, :query_heads] * self.llama.scale).view(rows, heads, -1, width).transpose(0, 1)
        query_EGd, sizes = query_KBGd.reshape(heads * rows, -1, width), query_KBGd.shape
        scores_EGS = torch.bmm(query_EGd, key_KBSd.flatten(0, 1).transpose(1, 2))
        scores_KBGL = scores_EGS.view(heads, rows, sizes[2], -1)
        if self.shared_size:
            slots_EQP = torch.bmm(self._to_slots(query_EGd.view(sizes)), shared_key_KCPd.flatten(0, 1).mT)
            scores_KBGL = torch.cat((self._to_rows(slots_EQP, sizes[2]), scores_KBGL), -1)
        weights_KBGL = torch.softmax(scores_KBGL.add_(self.mask_BL[:, None]), -1)
        own_EGS = weights_KBGL[..., self.shared_size :].reshape(scores_EGS.shape)
        found_KBGd = torch.bmm(own_EGS, value_KBSd.flatten(0, 1)).view(sizes)
        if self.shared_size:
            slots_EQP = self._to_slots(weights_KBGL[..., : self.shared_size])
            slots_EQd = torch.bmm(slots_EQP, shared_value_KCPd.flatten(0, 1))
            found_KBGd += self._to_rows(slots_EQd, sizes[2])
        return found_KBGd.transpose(0, 1).reshape(rows, -1)

    def keep_rows(self, kept: Tensor) -> None:
        """Let the other rows go."""
        _keep_rows(self.own, kept)
        self.mask_BL = self.mask_BL[kept]
        self.owners = [self.owners[row] for row in kept.tolist()]
        self._arrange()

    def _mask(self, shared_B: Tensor, own_B: Tensor) -> Tensor:
        # Added to the scores: beginnings are padded on the right, what is a row's own on the left; what is to come is
        # hidden too. The products then work on whole buffers, since of a slice they would make a copy first.
        place_P, place_S = torch.arange(self.shared_size), torch.arange(self.end + self.new_tokens)
        own_BS = (place_S < (self.end - own_B)[:, None]) | (place_S >= self.end)
        hidden_BL = torch.cat((place_P >= shared_B[:, None], own_BS), 1)
        mask_BL = torch.zeros(hidden_BL.shape, dtype=self.llama.embedding_VD.dtype)
        return mask_BL.masked_fill_(hidden_BL, -torch.inf)

    def _arrange(self) -> None:
        # Every beginning has as many slots as its largest group has rows; a free slot repeats some row. Rows without a
        # beginning take free slots, since the mask gives them no weight at any.
        count = len(self.beginning_CP)
        rows = [[row for row, owner in enumerate(self.owners) if owner == c] for c in range(count)]
        for row, owner in enumerate(self.owners):
            if owner < 0:
                min(rows, key=len).append(row)
        slots = max(map(len, rows), default=0)
        self.row_of_slot = torch.tensor([(own + [0] * slots)[:slots] for own in rows], dtype=torch.long).flatten()
        place = {row: c * slots + slot for c, own in enumerate(rows) for slot, row in enumerate(own)}
        self.slot_of_row = torch.tensor([place.get(row, 0) for row in range(len(self.owners))])

    def _to_slots(self, states_KBGx: Tensor) -> Tensor:
        picked_KNGx = states_KBGx.index_select(1, self.row_of_slot)
        heads, _, _, size = picked_KNGx.shape
        return picked_KNGx.reshape(heads * len(self.beginning_CP), -1, size)

    def _to_rows(self, states_EQx: Tensor, group: int) -> Tensor:
        size = states_EQx.shape[2]
        picked_KNGx = states_EQx.view(-1, len(self.row_of_slot), group, size)
        return picked_KNGx.index_select(1, self.slot_of_row)


def _count(packed: Packed) -> tuple[Tensor, Tensor]:
    # How many tokens of each row are its beginning's, and how many are its own.
    shared = [len(packed.beginnings[owner]) if owner >= 0 else 0 for owner in packed.owners]
    own = [len(places) - cut for places, cut in zip(packed.places, shared, strict=True)]
    return torch.tensor(shared), torch.tensor(own)


def _keep_rows(own: list[Pair], kept: Tensor) -> None:
    for number, (keys, values) in enumerate(own):  # layer by layer, for memory
        own[number] = (keys.index_select(1, kept), values.index_select(1, kept))


def _round_up(size: int) -> int:
    return -(-size // ROOM) * ROOM


def _last(places: Tensor, size: int, longest: int) -> Tensor:
    return pad(places[len(places) - size :], (longest - size, 0))


def _pick(states_KTd: Tensor, place_RL: Tensor) -> Tensor:
    heads, _, width = states_KTd.shape
    return states_KTd.index_select(1, place_RL.flatten()).view(heads, *place_RL.shape, width)


def _spread(states: Tensor, room: int, axis: int) -> Tensor:
    # A copy with zeros up to the wanted room.
    sizes = list(states.shape)
    sizes[axis] = room
    result = states.new_zeros(sizes)
    result.narrow(axis, 0, states.shape[axis]).copy_(states)
    return result
