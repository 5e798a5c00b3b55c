"""A key/value cache of fixed shape: B rows, each of its own length, in buffers that every step writes in place.

Decoding is one small step many times over, so the step is compiled, and a compiled function wants the same shapes and
no Python numbers that change: how far each row has come is an array. A row ends where its offset says; what lies behind
it (padding, a draft that was refused, an earlier text) is hidden by the mask, and overwritten in time. So rows of
different lengths share a batch without a common left or right edge, one can be replaced while the others go on, and to
forget tokens is a subtraction.

A ring keeps the last tokens only: what a sliding window can see (Beltagy et al. 2020), or, as a way past the trained
context, the last tokens and the very first, on which attention leans (StreamingLLM, Xiao et al. 2024).
"""

from dataclasses import dataclass

import mlx.core as mx
from mlx.utils import tree_map

from .cache import KVCache, Stored, grown

SPARE = 16
"""A ring has room for so many tokens beyond its window: so many may be written at once, and some of them taken back."""


@dataclass(frozen=True)
class Ring:
    """Each token sees the first `keep` tokens and those less than `window` before it; no others are kept."""

    window: int
    keep: int = 0

    @property
    def capacity(self) -> int:
        return self.keep + self.window + SPARE


class SlotCache:
    """One layer's keys and values [B, kv_heads, capacity, size], and the offset [B] of each row's next token.

    twin: the model is given every row of the batch twice, and this holds it once; see `generation/memory.py`.
    """

    def __init__(self, keys: Stored, values: Stored, offset: mx.array, ring: Ring | None = None, twin: bool = False):
        self.keys, self.values, self._row_offset = keys, values, offset
        self._ring, self._twin = ring, twin

    @property
    def offset(self) -> mx.array:
        """How many tokens each row of the model's batch has had: int32 [B], or [2 B] with twins."""
        return mx.concatenate([self._row_offset, self._row_offset]) if self._twin else self._row_offset

    @property
    def state(self) -> tuple[Stored, Stored]:
        return self.keys, self.values

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Stored, Stored]:
        """Write keys and values [B, kv_heads, T, size] where each row has come to; return the buffers, all of them."""
        rows, length = self._row_offset.shape[0], keys.shape[2]
        new = self._pack(keys[:rows]), self._pack(values[:rows])
        self.keys, self.values = tree_map(self._write, (self.keys, self.values), new)
        self._row_offset = self._row_offset + length
        if not self._twin:
            return self.keys, self.values
        return tree_map(lambda buffer: mx.broadcast_to(buffer, (2, *buffer.shape[1:])), (self.keys, self.values))

    def _pack(self, new: mx.array) -> Stored:
        return new

    def _write(self, buffer: mx.array, new: mx.array) -> mx.array:
        if buffer.shape[0] == 1 and self._ring is None:
            return mx.slice_update(buffer, new, self._row_offset, axes=(2,))
        slots = slots_of(self._row_offset[:, None] + mx.arange(new.shape[2]), self._ring)
        return mx.put_along_axis(buffer, mx.broadcast_to(slots[:, None, :, None], new.shape), new, axis=2)

    @property
    def capacity(self) -> int:
        part = self.keys[0] if isinstance(self.keys, (tuple, list)) else self.keys
        return part.shape[2]

    def distances(self, queries: int) -> mx.array:
        """How far before each of the next tokens each slot's token stands: int32 [B, queries, capacity].

        Below 0: nothing that this query may see. To be asked for before the tokens are written.
        """
        places = self.offset[:, None] + mx.arange(queries)
        slots = mx.arange(self.capacity)
        if self._ring is None:
            return places[..., None] - slots
        window, keep = self._ring.window, self._ring.keep
        last, size = places[:, -1:], self.capacity - keep
        latest = last - (last - slots) % size  # the last position that falls on this slot
        here = mx.where(slots < keep, slots, mx.where(latest < keep, last + 1, latest))
        distance = places[..., None] - here[:, None]
        return mx.where((slots < keep) | (distance < window), distance, -1)

    def make_mask(self, queries: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """What the next tokens may see, as mlx-lm's models ask for it: bool [B, 1, queries, capacity]."""
        distance = self.distances(queries)
        visible = distance >= 0 if window_size is None else (distance >= 0) & (distance < window_size)
        return visible[:, None]

    def is_trimmable(self) -> bool:
        return True


class QuantizedSlotCache(SlotCache):
    """The same in few bits, as in `QuantizedKVCache`."""

    def __init__(self, bits: int, group_size: int, *arguments, **options):
        super().__init__(*arguments, **options)
        self.bits, self.group_size = bits, group_size

    def _pack(self, new: mx.array) -> Stored:
        return tuple(mx.quantize(new, group_size=self.group_size, bits=self.bits))


def slots_of(positions: mx.array, ring: Ring | None) -> mx.array:
    """Where tokens at these positions are kept."""
    if ring is None:
        return positions
    return mx.where(positions < ring.keep, positions, ring.keep + (positions - ring.keep) % (ring.window + SPARE))


def as_slots(cache: KVCache, capacity: int, ring: Ring | None) -> tuple[Stored, Stored]:
    """A cache that has read a prompt, as buffers of `capacity` slots."""
    if ring is None:
        return tree_map(lambda buffer: grown(buffer, capacity)[:, :, :capacity], (cache.keys, cache.values))
    length = cache.offset
    first = max(length - ring.window - SPARE, ring.keep)
    positions = mx.array([*range(min(ring.keep, length)), *range(first, length)])
    slots = slots_of(positions, ring)

    def place(buffer: mx.array) -> mx.array:
        result = mx.zeros((*buffer.shape[:2], capacity, buffer.shape[3]), buffer.dtype)
        result[:, :, slots] = buffer[:, :, positions]
        return result

    return tree_map(place, (cache.keys, cache.values))
