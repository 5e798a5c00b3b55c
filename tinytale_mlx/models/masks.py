"""What attention may not see, taken out of its scores."""

import math

import mlx.core as mx

from .wide import add


def apply_mask(scores: mx.array, mask: mx.array) -> mx.array:
    """scores [B, kv_heads, heads / kv_heads, T, S] with a mask [T, S], [heads, T, S] or [B, 1 or heads, T, S].

    Booleans mark what is visible; numbers are added.
    """
    if mask.ndim >= 3:  # one per head, or one for all
        split = (1, 1) if mask.shape[-3] == 1 else scores.shape[1:3]
        mask = mask.reshape(*mask.shape[:-3], *split, *mask.shape[-2:])
    if mask.dtype == mx.bool_:
        return mx.where(mask, scores, mx.array(-math.inf, scores.dtype))
    return add(scores, mask)
