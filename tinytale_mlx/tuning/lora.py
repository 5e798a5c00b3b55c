"""LoRA (Hu et al. 2021): a frozen layer plus a trainable product of two thin matrices.

    y = W x + scale (x A) B        A [in, rank], B [rank, out]

B starts at zero, so that at first the model is exactly what it was. A and B stay in float32 whatever the layer is kept
in, a quantized one included (QLoRA, Dettmers et al. 2023). Their names and shapes are mlx-lm's.

Dropout on what goes into the adapter needs a key, and a block hands its matrices none. It is set from outside:

    with dropout_keys(model, key):
        nats, gradients = nn.value_and_grad(model, loss)(...)

The whole of the gradient belongs inside: `mx.checkpoint` computes a block again while it goes backwards, and has to
find the same key. Without a key there is no dropout.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..models.dropout import dropout, split_key
from .targets import EMBEDDING

LEAVES = ("lora_a", "lora_b", "m")
"""The names of the trainable arrays; `m` is DoRA's."""


class KeyedDropout:
    """A rate, and the key of the moment. No array of the module, lest it be taken for state of the model."""

    def __init__(self, rate: float):
        self.rate = rate
        self.key: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        return dropout(x, self.rate, self.key)


class LoRA(nn.Module, ABC):
    """What the adapters of a Linear and of an Embedding have in common: `base`, frozen, and `lora_a`, `lora_b`."""

    def __init__(self, base: nn.Module, weights: dict[str, mx.array], scale: float, rate: float = 0.0):
        super().__init__()
        self.base: Any = base
        self.lora_a, self.lora_b = weights["lora_a"], weights["lora_b"]
        self.scale = scale
        self.dropout = KeyedDropout(rate)

    @abstractmethod
    def delta(self) -> mx.array:
        """What the adapter adds to the layer's weight, in its shape and in float32."""

    def fused_weight(self, weight: mx.array) -> mx.array:
        """The weight, given in float32, with the adapter in it."""
        return weight + self.delta()


class LoRALinear(LoRA):
    """x [..., in] to [..., out]."""

    def __call__(self, x: mx.array) -> mx.array:
        y = self.base(x)
        return y + self._update(x).astype(y.dtype)

    def _update(self, x: mx.array) -> mx.array:
        return (self.scale * (self.dropout(x) @ self.lora_a)) @ self.lora_b

    def delta(self) -> mx.array:
        return (self.scale * self.lora_a @ self.lora_b).T


class LoRAEmbedding(LoRA):
    """Token ids to their rows; and, where the table is the head as well, hidden states to logits.

    Dropout is on the latter only: a lookup has no input that could be dropped.
    """

    def __call__(self, ids: mx.array) -> mx.array:
        y = self.base(ids)
        return y + (self.scale * self.lora_a[ids] @ self.lora_b).astype(y.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        y = self.base.as_linear(x)
        return y + self._logits(x).astype(y.dtype)

    def _logits(self, x: mx.array) -> mx.array:
        return (self.scale * (self.dropout(x) @ self.lora_b.T)) @ self.lora_a.T

    def delta(self) -> mx.array:
        return self.scale * self.lora_a @ self.lora_b


def initial_weights(layer: Any, rank: int, key: mx.array) -> dict[str, mx.array]:
    """A uniform within 1 / √(its length), as mlx-lm and PEFT draw it, and B zero."""
    rows, width = matrix_shape(layer)
    first, second = (rows, width) if isinstance(layer, EMBEDDING) else (width, rows)
    bound = 1 / math.sqrt(first)
    return {
        "lora_a": mx.random.uniform(-bound, bound, (first, rank), key=key),
        "lora_b": mx.zeros((rank, second)),
    }


def matrix_shape(layer: Any) -> tuple[int, int]:
    """[out, in] of a Linear, [rows, width] of an Embedding, also where the weights are packed into 32 bits."""
    rows, width = layer.weight.shape
    return rows, width if layer.get("scales") is None else width * 32 // layer.bits


@contextmanager
def dropout_keys(model: nn.Module, key: mx.array | None) -> Iterator[None]:
    """Dropout in every adapter of `model`, each with a key of its own out of `key`, until the end of the block.

    A layer that is used at several depths drops the same elements at each of them.
    """
    found = [
        module for _, module in sorted(model.named_modules(), key=lambda item: item[0]) if isinstance(module, LoRA)
    ]
    try:
        for module, own in zip(found, split_key(key, max(len(found), 1)), strict=False):
            module.dropout.key = own
        yield
    finally:
        for module in found:
            module.dropout.key = None
