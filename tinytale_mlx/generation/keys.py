"""Randomness of its own for each token: a function of the key, the row and the position, and of nothing else.

So a text does not depend on its neighbours in a batch, on the order of computation, or on whether a draft was made.
"""

from collections.abc import Sequence

import mlx.core as mx


def row_keys(key: mx.array, rows: Sequence[int]) -> mx.array:
    """Keys [len(rows), 2] of these rows. They are drawn from the key, so those of different keys have no relation."""
    numbers = mx.array(list(rows), mx.uint32)
    own = mx.stack([key[0] ^ numbers, mx.broadcast_to(key[1], numbers.shape)], axis=1)
    return mx.vmap(lambda one: mx.random.split(one)[0])(own)


def position_keys(keys: mx.array, positions: Sequence[int]) -> mx.array:
    """Keys [B, 2] for the tokens at these places of rows with keys [B, 2]."""
    numbers = mx.array(list(positions), mx.uint32)
    return keys ^ mx.stack([mx.zeros_like(numbers), numbers], axis=1)
