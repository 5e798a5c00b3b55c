"""How a transformer learns where a token stands: five ways, and none.

Attention by itself sees a set, not a sequence. Two families tell it the order. Absolute positions are added to the
embeddings: learned (GPT-2) or sinusoidal (Vaswani et al. 2017, section 3.5). Relative ones act inside attention: RoPE
turns queries and keys (Su et al. 2021), T5 buckets (Raffel et al. 2020, section 2.1) and ALiBi (Press et al. 2022) add
a bias to the scores that depends on the distance only.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from ..recipe import ModelConfig, RopeScaling
from .wide import lookup


def rope_wavelengths(dims: int, theta: float, scaling: RopeScaling | None) -> mx.array:
    """Positions per radian for each of the dims/2 planes, float32 [dims / 2]."""
    wavelengths = theta ** (mx.arange(0, dims, 2, dtype=mx.float32) / dims)
    if scaling is None:
        return wavelengths
    if scaling.type == "linear":
        return wavelengths * scaling.factor
    if scaling.type == "llama3":
        return _llama3(wavelengths, scaling)
    return _yarn(wavelengths, dims, theta, scaling)


def _llama3(wavelengths: mx.array, scaling: RopeScaling) -> mx.array:
    """Llama 3.1: slow planes are stretched, fast ones kept, those between blended."""
    turns = scaling.original_context / (2 * math.pi * wavelengths)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = mx.clip((turns - low) / (high - low), 0, 1)
    return wavelengths / ((1 - keep) / scaling.factor + keep)


def _yarn(wavelengths: mx.array, dims: int, theta: float, scaling: RopeScaling) -> mx.array:
    """YaRN's "NTK by parts" (Peng et al. 2023, section 3.2), with its defaults of 32 and 1 turns."""

    def plane(turns: float) -> float:
        return dims * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = max(math.floor(plane(32)), 0), min(math.ceil(plane(1)), dims - 1)
    stretch = mx.clip((mx.arange(dims // 2) - first) / max(last - first, 0.001), 0, 1)
    return wavelengths / (stretch / scaling.factor + (1 - stretch))


class Rope(nn.Module):
    """Rotary position embedding: x [B, heads, T, size] is turned by its position, plane by plane."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self._dims = config.size_per_head
        self._wavelengths = rope_wavelengths(self._dims, config.rope_theta, config.rope_scaling)
        # YaRN's temperature (equation 22) is applied to queries and keys alike.
        scaling = config.rope_scaling
        self._temperature = 0.1 * math.log(scaling.factor) + 1 if scaling and scaling.type == "yarn" else 1.0

    def __call__(self, x: mx.array, offset: int | mx.array) -> mx.array:
        """The offset is the position of the first of the T: one for all rows, or an array [B]."""
        if self._temperature != 1.0:
            x = x * self._temperature
        return mx.fast.rope(
            x, self._dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=self._wavelengths
        )


class Alibi(nn.Module):
    """Attention with linear biases: each head subtracts slope x distance from its scores."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self._slopes = mx.array(alibi_slopes(config.heads))

    def __call__(self, distance: mx.array) -> mx.array:
        """Bias [..., heads, T, S] for distances [..., T, S] = query position - key position."""
        return -self._slopes[:, None, None] * mx.abs(distance)[..., None, :, :]


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8i/n) for i = 1..n where n is a power of two; else the rest comes from the next power, every other one."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    between = [2 ** (-4 * i / power) for i in range(1, 2 * power + 1, 2)]
    return slopes + between[: heads - power]


class T5Bias(nn.Module):
    """A learned bias per head and bucket of distance; near distances have a bucket each, far ones share.

    T5 shares one table among all layers; here each layer has its own, so that attention stays self-contained.
    """

    BUCKETS, MAX_DISTANCE = 32, 128

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.weight = mx.zeros((self.BUCKETS, config.heads))

    def __call__(self, distance: mx.array) -> mx.array:
        """Bias [..., heads, T, S] for distances [..., T, S]; distances below 0, of the future, count as 0."""
        distance = mx.maximum(distance, 0)
        exact = self.BUCKETS // 2
        far = mx.log(mx.maximum(distance, 1).astype(mx.float32) / exact) / math.log(self.MAX_DISTANCE / exact)
        # The small addend keeps a distance on a bucket's border from falling below it by rounding.
        far_bucket = exact + mx.floor(far * (self.BUCKETS - exact) + 1e-4).astype(mx.int32)
        bucket = mx.where(distance < exact, distance, mx.minimum(far_bucket, self.BUCKETS - 1))
        return mx.moveaxis(lookup(self.weight, bucket), -1, -3)


def sinusoids(positions: mx.array, dims: int) -> mx.array:
    """Vaswani et al.'s table for positions [...]: float32 [..., dims], sines then cosines."""
    half = (dims + 1) // 2
    rates = mx.exp(-math.log(10000.0) * mx.arange(half, dtype=mx.float32) / half)
    angles = positions.astype(mx.float32)[..., None] * rates
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)[:, :dims]
