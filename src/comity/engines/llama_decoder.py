"""Decode with Llama's plain weights: the prompts packed in one pass, then one token a row and step."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from comity.engines.llama import Llama
from comity.engines.llama_pass import pass_packed, pass_tokens
from comity.engines.packing import Packed, pack_shared


class LlamaDecoder:
    """The rows of a batch with their keys and values of every layer.

    Those of a shared beginning stand once (K, C, P, d), and all its rows are attended to it in one product. A row's own
    (K, B, S, d) end at the same place as everybody's, so that a step writes one column.
    """

    def __init__(self, llama: Llama, prompts: Sequence[NDArray[np.int32]], new_tokens: int) -> None:
        self.llama = llama
        packed = pack_shared(prompts)
        self.length_B = torch.tensor([len(prompt) for prompt in prompts])
        self.owners = list(packed.owners)
        shared_B = torch.tensor([len(packed.beginnings[owner]) if owner >= 0 else 0 for owner in self.owners])
        own_B = self.length_B - shared_B
        self.end = int(own_B.max())
        own_BS = torch.stack([_last(row, int(size), self.end) for row, size in zip(packed.places, own_B, strict=True)])
        self.shared_keys: list[Tensor] = []
        self.shared_values: list[Tensor] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        beginning_CP = torch.nn.utils.rnn.pad_sequence(list(packed.beginnings) or [torch.zeros(0).long()], True)

        def keep(_: int, key_KTd: Tensor, value_KTd: Tensor) -> None:
            self.shared_keys.append(_pick(key_KTd, beginning_CP))
            self.shared_values.append(_pick(value_KTd, beginning_CP))
            self.keys.append(pad(_pick(key_KTd, own_BS), (0, 0, 0, new_tokens)))
            self.values.append(pad(_pick(value_KTd, own_BS), (0, 0, 0, new_tokens)))

        states_TD = pass_packed(llama, packed, keep)
        self.shared_size = beginning_CP.shape[1]
        self.mask_BL = self._mask(shared_B, own_B, self.end + new_tokens)
        self._arrange()
        self.logits_BV = self._logits(states_TD[_last_places(packed)])

    def step(self, token_B: Tensor) -> Tensor:
        """Take one token of each row in and return the logits (B, V) of the next."""
        self.mask_BL[:, self.shared_size + self.end] = 0
        states_BD = pass_tokens(self.llama, token_B, self.length_B, self._attend)
        self.end += 1
        self.length_B = self.length_B + 1
        return self._logits(states_BD)

    def keep_rows(self, kept: Tensor) -> None:
        """Let the other rows go."""
        self.keys = [item.index_select(1, kept) for item in self.keys]
        self.values = [item.index_select(1, kept) for item in self.values]
        self.length_B, self.mask_BL = self.length_B[kept], self.mask_BL[kept]
        self.owners = [self.owners[row] for row in kept.tolist()]
        self._arrange()

    def _mask(self, shared_B: Tensor, own_B: Tensor, room: int) -> Tensor:
        # Added to the scores: beginnings are padded on the right, what is a row's own on the left; what is to come is
        # hidden too. The products then work on whole buffers, since of a slice they would make a copy first.
        place_P, place_S = torch.arange(self.shared_size), torch.arange(room)
        own_BS = (place_S < (self.end - own_B)[:, None]) | (place_S >= self.end)
        hidden_BL = torch.cat((place_P >= shared_B[:, None], own_BS), 1)
        mask_BL = torch.zeros(hidden_BL.shape, dtype=self.llama.embedding_VD.dtype)
        return mask_BL.masked_fill_(hidden_BL, -torch.inf)

    def _arrange(self) -> None:
        # Every beginning has as many slots as its largest group has rows; a free slot repeats some row. Rows without a
        # beginning take free slots, since the mask gives them no weight at any.
        count = self.shared_keys[0].shape[1]
        rows = [[row for row, owner in enumerate(self.owners) if owner == c] for c in range(count)]
        for row, owner in enumerate(self.owners):
            if owner < 0:
                min(rows, key=len).append(row)
        slots = max(map(len, rows), default=0)
        self.row_of_slot = torch.tensor([(own + [0] * slots)[:slots] for own in rows], dtype=torch.long).flatten()
        place = {row: c * slots + slot for c, own in enumerate(rows) for slot, row in enumerate(own)}
        self.slot_of_row = torch.tensor([place.get(row, 0) for row in range(len(self.owners))])

    def _attend(self, number: int, query_BHd: Tensor, key_BKd: Tensor, value_BKd: Tensor) -> Tensor:
        key_KBSd, value_KBSd = self.keys[number], self.values[number]
        heads, rows, _, width = key_KBSd.shape
        key_KBSd[:, :, self.end] = key_BKd.transpose(0, 1)
        value_KBSd[:, :, self.end] = value_BKd.transpose(0, 1)
        query_KBGd = (query_BHd * self.llama.scale).view(rows, heads, -1, width).transpose(0, 1)
        query_EGd, sizes = query_KBGd.reshape(heads * rows, -1, width), query_KBGd.shape
        scores_EGS = torch.bmm(query_EGd, key_KBSd.flatten(0, 1).transpose(1, 2))
        scores_KBGL = scores_EGS.view(heads, rows, sizes[2], -1)
        if self.shared_size:
            slots_EQP = torch.bmm(self._to_slots(query_EGd.view(sizes)), self.shared_keys[number].flatten(0, 1).mT)
            scores_KBGL = torch.cat((self._to_rows(slots_EQP, sizes[2]), scores_KBGL), -1)
        weights_KBGL = torch.softmax(scores_KBGL.add_(self.mask_BL[:, None]), -1)
        own_EGS = weights_KBGL[..., self.shared_size :].reshape(scores_EGS.shape)
        found_KBGd = torch.bmm(own_EGS, value_KBSd.flatten(0, 1)).view(sizes)
        if self.shared_size:
            slots_EQP = self._to_slots(weights_KBGL[..., : self.shared_size])
            slots_EQd = torch.bmm(slots_EQP, self.shared_values[number].flatten(0, 1))
            found_KBGd += self._to_rows(slots_EQd, sizes[2])
        return found_KBGd.transpose(0, 1).reshape(rows, -1)

    def _to_slots(self, states_KBGx: Tensor) -> Tensor:
        picked_KNGx = states_KBGx.index_select(1, self.row_of_slot)
        heads, _, _, size = picked_KNGx.shape
        return picked_KNGx.reshape(heads * self.shared_keys[0].shape[1], -1, size)

    def _to_rows(self, states_EQx: Tensor, group: int) -> Tensor:
        size = states_EQx.shape[2]
        picked_KNGx = states_EQx.view(-1, len(self.row_of_slot), group, size)
        return picked_KNGx.index_select(1, self.slot_of_row)

    def _logits(self, states_BD: Tensor) -> Tensor:
        return self.llama.head(self.llama.norm_states(states_BD, self.llama.norm))


def _last(places: Tensor, size: int, longest: int) -> Tensor:
    return pad(places[len(places) - size :], (longest - size, 0))


def _last_places(packed: Packed) -> Tensor:
    return torch.stack([places[-1] for places in packed.places])


def _pick(states_KTd: Tensor, place_RL: Tensor) -> Tensor:
    heads, _, width = states_KTd.shape
    return states_KTd.index_select(1, place_RL.flatten()).view(heads, *place_RL.shape, width)
