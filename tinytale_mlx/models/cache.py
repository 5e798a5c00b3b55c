"""The key/value cache: what lets each new token be computed alone.

The interface is mlx-lm's (`offset`, `update_and_fetch`, `state`), so our models run in its generator and its models
run in ours.
"""

import mlx.core as mx


class KVCache:
    """Keys and values of the tokens so far, [B, kv_heads, offset, size], in buffers that grow by whole steps."""

    STEP = 256

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append keys and values [B, kv_heads, T, size]; return all of them so far."""
        start, end = self.offset, self.offset + keys.shape[2]
        self.keys = self._write(self.keys, keys, start, end)
        self.values = self._write(self.values, values, start, end)
        self.offset = end
        return self.keys[..., :end, :], self.values[..., :end, :]

    def _write(self, buffer: mx.array | None, new: mx.array, start: int, end: int) -> mx.array:
        if buffer is None or end > buffer.shape[2]:
            batch, heads, _, size = new.shape
            missing = -(-end // self.STEP) * self.STEP - (0 if buffer is None else buffer.shape[2])
            room = mx.zeros((batch, heads, missing, size), new.dtype)
            buffer = room if buffer is None else mx.concatenate([buffer, room], axis=2)
        buffer[..., start:end, :] = new
        return buffer

    @property
    def state(self) -> list[mx.array]:
        """What has to be evaluated for the cache to be up to date."""
        return [x for x in (self.keys, self.values) if x is not None]

    def is_trimmable(self) -> bool:
        return True

    def trim(self, count: int) -> int:
        """Forget the last `count` tokens, or all there are; return how many were forgotten."""
        forgotten = min(count, self.offset)
        self.offset -= forgotten
        return forgotten
