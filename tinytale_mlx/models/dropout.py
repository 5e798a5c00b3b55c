"""Dropout (Srivastava et al. 2014) whose randomness is an argument.

`mlx.nn.Dropout` draws from ambient state: a resumed run would see other masks, and `mx.checkpoint`, which computes the
forward pass twice, would silently get wrong gradients. Here a key comes in, and no key means no dropout.
"""

import mlx.core as mx


def dropout(x: mx.array, rate: float, key: mx.array | None) -> mx.array:
    """x with each element zeroed with probability `rate` and the others scaled by 1 / (1 - rate)."""
    if key is None or rate == 0.0:
        return x
    keep = mx.random.bernoulli(1 - rate, x.shape, key=key)
    return mx.where(keep, x * (1 / (1 - rate)), mx.zeros_like(x))


def split_key(key: mx.array | None, count: int) -> list[mx.array | None]:
    """`count` independent keys, or as many Nones."""
    if key is None:
        return [None] * count
    return list(mx.random.split(key, count))
