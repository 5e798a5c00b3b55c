"""Prefix tuning (Li & Liang 2021): learned keys and values stand before those of every text, in every layer.

It is a key/value cache that was never written by tokens: the protocol of `models/cache.py` is all that it needs. The
paper trains the prefix through a small network, for it starts from noise. Here it starts as the keys and values of
some words, the paper's best start with little data (section 7.4), and is trained itself.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .prompt import Prompted, new_cache
from .targets import token_embedding


class PrefixCache:
    """Keys and values [B, kv_heads, offset, size] so far; they grow by joining, through which gradients flow."""

    def __init__(self, keys: mx.array, values: mx.array):
        self.keys, self.values = keys, values

    @property
    def offset(self) -> int:
        return self.keys.shape[2]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.keys = mx.concatenate([self.keys, keys], axis=2)
        self.values = mx.concatenate([self.values, values], axis=2)
        return self.keys, self.values

    @property
    def state(self) -> list[mx.array]:
        return [self.keys, self.values]


class PrefixTuned(Prompted):
    """`model` with `prefix_keys` and `prefix_values` [layers, kv_heads, length, size] before those of every text."""

    def __init__(self, model: nn.Module, prefix_keys: mx.array, prefix_values: mx.array):
        super().__init__(model)
        self.prefix_keys, self.prefix_values = prefix_keys, prefix_values
        self.length = prefix_keys.shape[2]
        # Of the hidden states, lest the prefix turn a model in 16 bits into one in 32.
        self._dtype = token_embedding(model)[1](mx.array([0])).dtype

    def _read(self, function: Callable, ids: mx.array, cache: Any, extra: dict[str, mx.array]) -> mx.array:
        before = [
            [mx.broadcast_to(x.astype(self._dtype), (len(ids), *x.shape)) for x in layer]
            for layer in zip(self.prefix_keys, self.prefix_values, strict=True)
        ]
        if cache is None:
            cache = [PrefixCache(*layer) for layer in before]
        else:
            for own, layer in zip(cache, before, strict=True):
                own.update_and_fetch(*layer)
        return function(ids, cache=cache, **extra)


def initial_prefix(model: nn.Module, ids: mx.array) -> tuple[mx.array, mx.array]:
    """The keys and values [layers, kv_heads, length, size] that the model itself makes of ids [length]."""
    cache = new_cache(model)
    mx.eval(model(ids[None], cache=cache))
    length = len(ids)
    stacked = [mx.stack([getattr(layer, name)[0, :, :length] for layer in cache]) for name in ("keys", "values")]
    return stacked[0].astype(mx.float32), stacked[1].astype(mx.float32)
