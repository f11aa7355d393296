"""A key-value cache that is allocated once for a batch and written in place."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values (B, heads, length, width) inside buffers of full length.

    The library's growing cache copies every key and value at every token; this one writes the new ones only.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0
        self.key_buffer: Tensor | None = None
        self.value_buffer: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values behind the old ones and return views of all of them."""
        if self.key_buffer is None or self.value_buffer is None:
            self.lazy_initialization(key_states, value_states)
            self.key_buffer = _allocate(key_states, len(key_states), self.capacity)
            self.value_buffer = _allocate(value_states, len(value_states), self.capacity)
        end = self.length + key_states.shape[-2]
        self.key_buffer[:, :, self.length : end] = key_states
        self.value_buffer[:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = self.key_buffer[:, :, :end], self.value_buffer[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return how many positions are filled."""
        return self.length

    def select_rows(self, rows: Tensor, capacity: int) -> None:
        """Make the batch the given rows, repeated or dropped, with room for `capacity` positions."""
        if self.key_buffer is None or self.value_buffer is None:
            self.capacity = capacity
            return
        for name in ("key_buffer", "value_buffer"):
            old = getattr(self, name)
            new = _allocate(old, len(rows), capacity)
            new[:, :, : self.length] = old[rows, :, : self.length]
            setattr(self, name, new)
        self.capacity = capacity


def allocate_cache(config: PretrainedConfig, capacity: int) -> Cache:
    """Return an empty cache of `capacity` positions for every layer of a model."""
    text = config.get_text_config(decoder=True)
    return Cache(layers=[PreallocatedLayer(capacity) for _ in range(text.num_hidden_layers)])


def select_rows(cache: Cache, rows: Tensor, capacity: int) -> None:
    """Select rows of every layer, see `PreallocatedLayer.select_rows`."""
    for layer in cache.layers:
        layer.select_rows(rows, capacity)


def _allocate(states: Tensor, rows: int, capacity: int) -> Tensor:
    _, heads, _, width = states.shape
    return torch.empty(rows, heads, capacity, width, dtype=states.dtype, device=states.device)
