"""Causal self-attention: multi-head (Vaswani et al. 2017), or grouped-query (Ainslie et al. 2023).

One body serves training, prefill and decoding. Positions, mask and scale live inside; a newcomer who wants another
attention edits this file, and `tests/contracts/test_attention.py` says whether it is still attention.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from ..recipe import ModelConfig
from .cache import KVCache, QuantizedKVCache
from .dropout import dropout
from .elementary import scalar_exp, softmax
from .masks import apply_mask
from .norms import RMSNorm
from .positions import Alibi, Rope, T5Bias
from .quantized_attention import quantized_attention
from .slots import QuantizedSlotCache, SlotCache
from .wide import Linear


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        size, bias = config.size_per_head, config.attention_bias
        self.q_proj = Linear(config.hidden_size, config.heads * size, bias=bias)
        self.k_proj = Linear(config.hidden_size, config.num_kv_heads * size, bias=bias)
        self.v_proj = Linear(config.hidden_size, config.num_kv_heads * size, bias=bias)
        self.o_proj = Linear(config.heads * size, config.hidden_size, bias=bias)
        if config.qk_norm:  # Henry et al. 2020: bounds the scores; Qwen3 and nanochat both have it
            self.q_norm = RMSNorm(size, config.norm_eps, config.norm_weight)
            self.k_norm = RMSNorm(size, config.norm_eps, config.norm_weight)
        if config.positions == "t5":
            self.relative_bias = T5Bias(config)
        self._alibi = Alibi(config) if config.positions == "alibi" else None
        self._rope = Rope(config) if config.positions == "rope" else None
        self._config = config

    def __call__(
        self,
        x: mx.array,
        cache: KVCache | SlotCache | None = None,
        key: mx.array | None = None,
        segments: mx.array | None = None,
    ) -> mx.array:
        """x [B, T, hidden] to [B, T, hidden]. With a cache, x continues what it holds; a key turns dropout on.

        segments [B, T]: the document of each token, beyond which it does not see; not with a cache.
        """
        return self.o_proj(self.attend(*self.project(x), cache, key, segments))

    @property
    def projections(self) -> list[nn.Module]:
        """What `project` uses."""
        return [self.q_proj, self.k_proj, self.v_proj]

    @property
    def between(self) -> list[nn.Module]:
        """What `attend` uses."""
        return [self[name] for name in ("q_norm", "k_norm", "relative_bias") if name in self]

    def project(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Queries [B, T, heads * size], and keys and values [B, T, kv_heads * size]."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def attend(
        self,
        q: mx.array,
        k: mx.array,
        v: mx.array,
        cache: KVCache | SlotCache | None = None,
        key: mx.array | None = None,
        segments: mx.array | None = None,
    ) -> mx.array:
        """What the heads say, side by side, [B, T, heads * size]: all of attention that is no product with weights.

        In training the block keeps only the arguments, and computes scores and all else again.
        """
        config, length = self._config, q.shape[1]
        offset = cache.offset if cache is not None else 0
        q = self._split_heads(q, config.heads)
        k = self._split_heads(k, config.num_kv_heads)
        v = self._split_heads(v, config.num_kv_heads)
        if config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self._rope is not None:
            q, k = self._rope(q, offset), self._rope(k, offset)
        distance = cache.distances(length) if isinstance(cache, SlotCache) else None
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)

        scale = config.size_per_head**-0.5
        if isinstance(cache, QuantizedKVCache | QuantizedSlotCache):
            mask = self._mask(q.shape[2], k[0].shape[2], q.dtype, segments, distance)
            return self._join_heads(quantized_attention(q, k, v, scale, mask, cache.bits, cache.group_size))
        mask = self._mask(q.shape[2], k.shape[2], q.dtype, segments, distance)
        rate = config.attention_dropout if key is not None else 0.0
        # On a CPU the kernel is not fused either, and `softmax` is the faster one there. Nor is it fused in training
        # (with a key), and in 16 bits the derivative of `softmax` is the more exact one.
        trains_narrow = key is not None and q.dtype != mx.float32
        if config.attention == "fused" and rate == 0.0 and not scalar_exp() and not trains_narrow:
            y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
        else:
            y = manual_attention(q, k, v, scale, mask, rate, key)
        return self._join_heads(y)

    def _join_heads(self, y: mx.array) -> mx.array:
        return y.transpose(0, 2, 1, 3).flatten(2)

    def _split_heads(self, x: mx.array, heads: int) -> mx.array:
        """[B, T, heads * size] to [B, heads, T, size]."""
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    def _mask(
        self,
        queries: int,
        keys: int,
        dtype: mx.Dtype,
        segments: mx.array | None = None,
        distance: mx.array | None = None,
    ) -> mx.array | str | None:
        """What the queries, which are the last of the keys, may see: "causal", None for all, or an array.

        A boolean array [queries, keys] marks what is visible; with a relative bias, an array [heads, queries, keys] of
        that dtype holds the bias, and -inf for what is not. With segments, or distances [B, queries, keys] that a
        cache gives, there is a batch axis before: [B, 1 or heads, queries, keys].
        """
        window = self._config.sliding_window
        bias = self._alibi or self.get("relative_bias")
        if distance is None:
            if bias is None and segments is None and (window is None or keys <= window):
                return "causal" if queries > 1 else None
            distance = mx.arange(keys - queries, keys)[:, None] - mx.arange(keys)[None]
        visible = distance >= 0
        if window is not None:
            visible = visible & (distance < window)
        if distance.ndim == 3:
            visible = visible[:, None]
        if segments is not None:
            visible = visible & (segments[:, None, :, None] == segments[:, None, None])
        return visible if bias is None else mx.where(visible, bias(distance), -math.inf).astype(dtype)


def manual_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    scale: float,
    mask: mx.array | str | None,
    dropout_rate: float = 0.0,
    key: mx.array | None = None,
) -> mx.array:
    """softmax(q kT x scale + mask) v, spelled out; the reference for the fused kernel, and the path with dropout.

    q [B, heads, T, size], k and v [B, kv_heads, S, size], mask as in `Attention._mask`; returns [B, heads, T, size].
    """
    batch, heads, length, size = q.shape
    groups = k.shape[1]
    q = q.reshape(batch, groups, heads // groups, length, size)
    scores = (q * scale) @ k[:, :, None].swapaxes(-1, -2)
    if isinstance(mask, str):
        mask = mx.arange(k.shape[2] - length, k.shape[2])[:, None] >= mx.arange(k.shape[2])[None]
    if mask is not None:
        scores = apply_mask(scores, mask)
    weights = dropout(softmax(scores), dropout_rate, key)
    return (weights @ v[:, :, None]).reshape(batch, heads, length, size)
