"""The step that all methods here take: of losses that also say what they saw, with one optimiser for all.

What they saw, how many tokens were clipped, how far the policy has moved, are sums, and travel with the gradients
(`training/step.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from ..training.adamw import AdamW
from ..training.step import Arrays, Loss, Step

Measured = tuple[mx.array, mx.array, dict[str, mx.array]]
MeasuredLoss = Callable[[Any, Arrays], Measured]
"""`loss(model, arrays)` is (Σ loss, Σ weights, {name: a sum of anything}), float32 scalars. Nothing here has dropout,
so that the first ratio of new to old is 1; so nothing takes a key."""


class MeasuredStep(Step):
    """A `Step` of a loss that measures, or of several by the names of their submodules.

    It computes in float32 what is trained. Frozen weights may have 16 bits.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: MeasuredLoss | Mapping[str, MeasuredLoss],
        optimizer: optim.Optimizer | None = None,
        max_grad_norm: float | None = 1.0,
    ):
        self.measure = loss
        keyed = {name: _keyed(one) for name, one in loss.items()} if isinstance(loss, Mapping) else _keyed(loss)
        super().__init__(model, adam() if optimizer is None else optimizer, max_grad_norm, keyed)


def _keyed(loss: MeasuredLoss) -> Loss:
    return lambda model, arrays, key: loss(model, arrays)


def adam(learning_rate: float = 1e-5) -> AdamW:
    """What all methods here use: with bias correction, and an eps of 1e-5 (Huang et al. 2024)."""
    return AdamW(learning_rate, (0.9, 0.999), 1e-5, 0.0)
