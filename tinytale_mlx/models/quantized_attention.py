"""Attention over a quantized cache: the products are made with the packed numbers, which are never unpacked whole."""

from typing import Any

import mlx.core as mx

from .elementary import softmax
from .masks import apply_mask


def quantized_attention(
    q: mx.array,
    k: Any,
    v: Any,
    scale: float,
    mask: mx.array | str | None,
    bits: int,
    group_size: int,
) -> mx.array:
    """softmax(q kT x scale + mask) v for k and v as `mx.quantize` gives them, [B, kv_heads, S, ...].

    q [B, heads, T, size] and mask as in `manual_attention`; returns [B, heads, T, size].
    """
    batch, heads, length, size = q.shape
    groups, keys = k[0].shape[1:3]
    q = q.reshape(batch, groups, heads // groups * length, size)  # the heads of a group read the same keys
    packed = {"bits": bits, "group_size": group_size}
    scores = mx.quantized_matmul(q * scale, *k, transpose=True, **packed)
    scores = scores.reshape(batch, groups, heads // groups, length, keys)
    if isinstance(mask, str):
        mask = mx.arange(keys - length, keys)[:, None] >= mx.arange(keys)[None]
    if mask is not None:
        scores = apply_mask(scores, mask)
    weights = softmax(scores).reshape(batch, groups, heads // groups * length, keys)
    return mx.quantized_matmul(weights, *v, transpose=False, **packed).reshape(batch, heads, length, size)
