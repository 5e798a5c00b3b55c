"""Sums of many 16-bit numbers, made in 32 bits.

A running total in bfloat16 has 8 bits: once it is 256 times as large as what is added, adding does nothing. MLX adds
up in the dtype of the numbers when it scatters, on every backend (a token that occurs 1,000 times in a batch gets a
gradient that is 20 % off), and on a GPU also when it sums, so that gradients of biases, of norms and of softmax suffer.
Matrix products and norms' own forward pass add up in float32 anyway. So only derivatives are written out here, and
each rounds once, at the end. With float32 everything is MLX's own.
"""

import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .elementary import with_vjp


def lookup(table: mx.array, rows: mx.array) -> mx.array:
    """table[rows]: [N, width] and integers [...] to [..., width]."""
    return table[rows] if table.dtype == mx.float32 else _lookup(table, rows)


@with_vjp
def _lookup(table: mx.array, rows: mx.array) -> mx.array:
    return table[rows]


@_lookup.vjp
def _lookup_vjp(primals: Any, cotangent: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
    table, rows = primals
    total = mx.zeros(table.shape).at[rows].add(cotangent.astype(mx.float32))
    return total.astype(table.dtype), mx.zeros_like(rows)


def add(x: mx.array, addend: mx.array) -> mx.array:
    """x + addend in the dtype of x, where the addend is broadcast to the shape of x."""
    return x + addend.astype(x.dtype) if x.dtype == mx.float32 else _add(x, addend)


@with_vjp
def _add(x: mx.array, addend: mx.array) -> mx.array:
    return x + addend.astype(x.dtype)


@_add.vjp
def _add_vjp(primals: Any, cotangent: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
    x, addend = primals
    before = x.ndim - addend.ndim
    repeated = [axis for axis in range(x.ndim) if axis < before or addend.shape[axis - before] < x.shape[axis]]
    total = cotangent.astype(mx.float32).sum(axis=repeated).reshape(addend.shape)
    return cotangent, total.astype(addend.dtype)


class Embedding(nn.Embedding):
    """A row for each id, with the gradients of a row summed in float32."""

    def __call__(self, x: mx.array) -> mx.array:
        return lookup(self["weight"], x)


class Linear(nn.Linear):
    """x W^T + b, with the gradient of b summed in float32."""

    def __call__(self, x: mx.array) -> mx.array:
        if "bias" not in self or x.dtype == mx.float32:
            return super().__call__(x)
        return add(x @ self["weight"].T, self["bias"])


def derived_in_float32(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """The same function of arrays; where the first one has 16 bits, its derivative is computed in 32."""

    @with_vjp
    def narrow(*primals: mx.array) -> mx.array:
        return function(*primals)

    @narrow.vjp
    def _(primals: Any, cotangent: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        primals = primals if isinstance(primals, tuple | list) else [primals]
        wide = [primal.astype(mx.float32) for primal in primals]
        gradients = mx.vjp(function, wide, [cotangent.astype(mx.float32)])[1]
        return tuple(g.astype(primal.dtype) for g, primal in zip(gradients, primals, strict=True))

    @functools.wraps(function)
    def chosen(*primals: mx.array) -> mx.array:
        return (function if primals[0].dtype == mx.float32 else narrow)(*primals)

    return chosen
