"""A step whose loss also says what it saw: how many tokens were clipped, how far the policy has moved.

The figures are sums, and travel with the gradients through micro-batches and lanes, so no second forward pass is needed
for them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from ..models.parameters import named_arrays
from ..training.adamw import AdamW
from ..training.step import Arrays, Gradients, Step

MARK = "\n"
"""No name of a parameter begins so."""
Measured = tuple[mx.array, mx.array, dict[str, mx.array]]
MeasuredLoss = Callable[[Any, Arrays], Measured]
"""`loss(model, arrays)` is (Σ loss, Σ weights, {name: a sum of anything}), float32 scalars."""


class MeasuredStep(Step):
    """A `Step` of a loss that measures. `measured` holds the sums of the last step, from before its update.

    Of a model of several models that share no parameters, the loss may be one for each, by the name of the submodule:
    then the activations of one are gone before the next one's are made. The losses are added up; the weights are those
    of the first.

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
        self.measured: dict[str, float] = {}
        super().__init__(model, adam() if optimizer is None else optimizer, max_grad_norm)

    def _rows_gradients(self, parameters: dict, arrays: Arrays, key: mx.array, scale: mx.array) -> Gradients:
        if not isinstance(self.measure, Mapping):
            return self._part(self.measure, parameters, arrays, scale)
        (first, loss), *others = self.measure.items()
        total, count, gradients = self._part(loss, parameters, arrays, scale, first)
        for name, loss in others:
            here = mx.depends([array for array in arrays if array is not None], list(gradients.values()))
            more, _, own = self._part(loss, parameters, here, scale, name)
            total, gradients = total + more, gradients | own
        return total, count, gradients

    def _part(
        self, loss: MeasuredLoss, parameters: dict, arrays: Arrays, scale: mx.array, name: str | None = None
    ) -> Gradients:
        """Of the loss by all parameters, or by those of the submodule `name`."""

        def scaled(own: dict) -> tuple[mx.array, Measured]:
            self.model.update(own)
            found = loss(self.model, arrays)
            return found[0] * scale, found

        own = parameters if name is None else {name: parameters[name]}
        (_, (total, count, sums)), gradients = mx.value_and_grad(scaled)(own)
        self.model.update(own)
        marked = {MARK + figure: mx.stop_gradient(array) for figure, array in sums.items()}
        return total, count, {**dict(named_arrays(gradients)), **marked}

    def _sum(self, micro_batches: Iterable[Sequence[np.ndarray | None]], key: mx.array) -> Gradients:
        total = super()._sum(micro_batches, key)
        gradients = total[2]
        names = [name for name in gradients if name.startswith(MARK)]
        self.measured = {name.removeprefix(MARK): float(gradients.pop(name)) for name in names}
        return total


def adam(learning_rate: float = 1e-5) -> AdamW:
    """What all methods here use: with bias correction, and an eps of 1e-5 (Huang et al. 2024)."""
    return AdamW(learning_rate, (0.9, 0.999), 1e-5, 0.0)
