"""DoRA (Liu et al. 2024): LoRA moves the direction of each row of a matrix, and a magnitude of its own its length.

    y = m / |W + scale (A B)^T| · (W x + scale (x A) B)        one norm, and one m, per output

At first m is the norm of W, so nothing changes. As in section 4.3 of the paper the norm counts as a constant in the
gradient. It is computed from |W|², W A and A^T A, without making the sum of the two matrices: it costs rank times
less memory, and a quantized W needs to be unpacked for no more than `rank` rows.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .lora import LoRA, LoRAEmbedding, LoRALinear
from .quantized_matmul import dequantized, quantized_matmul

TINY = 1e-30
"""Under the square of a norm: a row of zeros has a magnitude too, and it divides by itself."""


def initial_magnitude(layer: Any) -> mx.array:
    """The norm of each row of the layer's matrix, [out]."""
    return _root(_squares(layer))


def _squares(layer: Any) -> mx.array:
    return mx.square(dequantized(layer)).sum(axis=1)


def _root(squares: mx.array) -> mx.array:
    return mx.sqrt(mx.maximum(squares, TINY))


class DoRA(LoRA):
    def __init__(self, base: nn.Module, weights: dict[str, mx.array], scale: float, rate: float = 0.0):
        super().__init__(base, weights, scale, rate)
        self.m = weights["m"]
        self._base_squares = _squares(base)
        mx.eval(self._base_squares)

    def fused_weight(self, weight: mx.array) -> mx.array:
        moved = weight + self.delta()
        return (self.m / _root(mx.square(moved).sum(axis=1)))[:, None] * moved

    def _stretched(self, y: mx.array, update: mx.array, gain: mx.array) -> mx.array:
        """gain (y + update), but for the bias in y. With a gain of 1 and an update of 0, as at first, exactly y."""
        moved = gain * (y + update)
        if "bias" in self.base:
            moved = moved - (gain - 1) * self.base.bias
        return moved.astype(y.dtype)

    def _gain(self, products: mx.array, down: mx.array, up: mx.array) -> mx.array:
        """m / |W + scale D| per row, with D = up down; products = W down^T [rows, rank], up [rows, rank]."""
        across = (products * up).sum(axis=1)
        own = ((up @ (down @ down.T)) * up).sum(axis=1)
        squares = self._base_squares + 2 * self.scale * across + self.scale**2 * own
        return self.m / mx.stop_gradient(_root(squares))


class DoRALinear(DoRA, LoRALinear):
    def __call__(self, x: mx.array) -> mx.array:
        return self._stretched(self.base(x), self._update(x), self.gain())

    def gain(self) -> mx.array:
        """[out]"""
        down = self.lora_a.T
        return self._gain(_times(down, self.base).T, down, self.lora_b.T)


class DoRAEmbedding(DoRA, LoRAEmbedding):
    def __call__(self, ids: mx.array) -> mx.array:
        y = self.base(ids)
        update = self.scale * self.lora_a[ids] @ self.lora_b
        squares = self._base_squares[ids] + (2 * y * update + mx.square(update)).sum(axis=-1)
        return self._stretched(y, update, (self.m[ids] / mx.stop_gradient(_root(squares)))[..., None])

    def as_linear(self, x: mx.array) -> mx.array:
        return self._stretched(self.base.as_linear(x), self._logits(x), self.gain())

    def gain(self) -> mx.array:
        """[rows]"""
        return self._gain(_times(self.lora_b, self.base).T, self.lora_b, self.lora_a)


def _times(x: mx.array, layer: Any) -> mx.array:
    """x W^T [rank, out], for a layer of any kind, without its bias."""
    return x @ layer.weight.T if layer.get("scales") is None else quantized_matmul(x, layer)
