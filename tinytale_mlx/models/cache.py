"""The key/value cache: what lets each new token be computed alone.

The interface is mlx-lm's (`offset`, `update_and_fetch`, `state`), so our models run in its generator and its models
run in ours. Here a cache grows as a prompt is read; `slots.py` has the one of fixed shape that decoding wants.
"""

from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

Stored = Any
"""One array [B, kv_heads, T, size]; or what `mx.quantize` makes of it: packed numbers, scales, biases."""


class KVCache:
    """Keys and values of the tokens so far, [B, kv_heads, offset, size], in buffers that grow by whole steps."""

    STEP = 128

    def __init__(self) -> None:
        self.keys: Stored = None
        self.values: Stored = None
        self.offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Stored, Stored]:
        """Append keys and values [B, kv_heads, T, size]; return all of them so far."""
        start, self.offset = self.offset, self.offset + keys.shape[2]
        self.keys = self._append(self.keys, self._pack(keys), start)
        self.values = self._append(self.values, self._pack(values), start)
        return tree_map(lambda buffer: buffer[..., : self.offset, :], (self.keys, self.values))

    def _pack(self, new: mx.array) -> Stored:
        return new

    def _append(self, stored: Stored, new: Stored, start: int) -> Stored:
        if stored is None:
            stored = tree_map(lambda part: part[..., :0, :], new)

        def write(buffer: mx.array, part: mx.array) -> mx.array:
            buffer = grown(buffer, whole_steps(self.offset))
            buffer[..., start : self.offset, :] = part
            return buffer

        return tree_map(write, stored, new)

    @property
    def state(self) -> list[mx.array]:
        """What has to be evaluated for the cache to be up to date."""
        return [array for _, array in tree_flatten((self.keys, self.values)) if isinstance(array, mx.array)]

    def is_trimmable(self) -> bool:
        return True

    def trim(self, count: int) -> int:
        """Forget the last `count` tokens, or all there are; return how many were forgotten."""
        forgotten = min(count, self.offset)
        self.offset -= forgotten
        return forgotten


class QuantizedKVCache(KVCache):
    """Keys and values in `bits` bits, each `group_size` of them with a scale and a bias: affine quantization.

    What is fetched is what `mx.quantize` made: (packed, scales, biases), which attention multiplies with as it is.
    """

    def __init__(self, bits: int, group_size: int) -> None:
        super().__init__()
        self.bits, self.group_size = bits, group_size

    def _pack(self, new: mx.array) -> Stored:
        return tuple(mx.quantize(new, group_size=self.group_size, bits=self.bits))


def whole_steps(length: int) -> int:
    """The capacity of buffers that hold `length` tokens."""
    return -(-length // KVCache.STEP) * KVCache.STEP


def grown(buffer: mx.array, capacity: int) -> mx.array:
    """The buffer [B, heads, S, size] with room for `capacity` tokens at least."""
    missing = capacity - buffer.shape[2]
    if missing <= 0:
        return buffer
    room = mx.zeros((*buffer.shape[:2], missing, buffer.shape[3]), buffer.dtype)
    return mx.concatenate([buffer, room], axis=2) if buffer.shape[2] else room
