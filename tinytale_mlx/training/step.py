"""One optimiser step: gradients of the summed loss over all micro-batches, one division, clipping, one update.

Losses travel as (Σ loss, Σ weights), so an accumulated step weighs every token alike, however unevenly the
micro-batches are filled.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from .. import blas
from ..recipe.training import Precision
from .losses import token_loss
from .optimizers import global_norm
from .precision import LossScale, cast

Arrays = Sequence[mx.array | None]
"""A micro-batch: arrays whose first axis is the batch, and None for what it lacks."""
Loss = Callable[[Any, Arrays, mx.array], tuple[mx.array, mx.array]]
"""`loss(model, arrays, key)` is (Σ loss, Σ weights), float32 scalars; `key` is what dropout draws from."""
Gradients = tuple[mx.array, mx.array, dict]
"""Σ loss, Σ weights, and the gradient of Σ loss x loss scale."""


class StepResult(NamedTuple):
    nats: float
    tokens: float
    grad_norm: float
    """Before clipping, of the mean loss."""
    applied: bool = True
    """False where something was not finite: the model and the optimiser then are as they were."""


class Step:
    """`step(micro_batches, learning_rate, key)` moves the model and the optimiser's state, and says how it went.

    Gradients and update are compiled; a micro-batch's activations are freed before the next one starts. To go on from
    a checkpoint, load it first: the compiled update holds on to the arrays of the optimiser's state.

    `all_sum` adds up what several processes found, see `distributed.py`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        max_grad_norm: float | None,
        loss: Loss = token_loss,
        precision: Precision = "float32",
        loss_scale: LossScale | None = None,
        all_sum: Callable[[Gradients], Gradients] | None = None,
    ):
        self.model, self.optimizer, self.max_grad_norm = model, optimizer, max_grad_norm
        self.loss, self.all_sum = loss, all_sum
        self.precision: Precision = precision
        self.loss_scale = loss_scale or LossScale()
        self.lanes = cpu_lanes()
        optimizer.init(model.trainable_parameters())
        state = [model.state, optimizer.state]
        self._gradients = mx.compile(self._batch_gradients, inputs=[model.state])
        self._norm = mx.compile(global_norm)
        self._update = mx.compile(self._apply, inputs=state, outputs=state)

    def __call__(
        self, micro_batches: Iterable[Sequence[np.ndarray | None]], learning_rate: float, key: mx.array
    ) -> StepResult:
        """One update from batches: tuples of arrays, as the loss takes them. `key` is what dropout draws from."""
        total: Gradients | None = None
        scale = mx.array(self.loss_scale.value)
        with blas.single_threaded() if len(self.lanes) > 1 else nullcontext():
            for batch in micro_batches:
                key, own = mx.random.split(key)
                arrays = [None if array is None else mx.array(array) for array in batch]
                part = self._gradients(arrays, own, scale)
                total = part if total is None else tree_map(mx.add, total, part)
                mx.eval(total)
                del part
            if total is None:
                raise ValueError("a step needs at least one micro-batch")
            nats, count, gradients = total if self.all_sum is None else self.all_sum(total)
            divisor = max(float(count), 1.0) * self.loss_scale.value
            norm = float(self._norm(gradients)) / divisor
            result = StepResult(float(nats), float(count), norm, math.isfinite(float(nats)) and math.isfinite(norm))
            del total
            if result.applied:
                factor = clip_factor(norm, self.max_grad_norm) / divisor
                self._update(gradients, mx.array(factor), mx.array(learning_rate))
                mx.eval(self.model.parameters(), self.optimizer.state)
            self.loss_scale.update(result.applied)
        return result

    def _batch_gradients(self, arrays: Arrays, key: mx.array, scale: mx.array) -> Gradients:
        """The rows are shared out among the lanes; each lane is a stream, so they run side by side."""
        rows = next(len(array) for array in arrays if array is not None)
        lanes = self.lanes[:rows]
        borders = [rows * i // len(lanes) for i in range(1, len(lanes))]
        shares = [[None] * len(lanes) if array is None else mx.split(array, borders) for array in arrays]
        parameters = self.model.trainable_parameters()
        total: Gradients | None = None
        for lane, own, *share in zip(lanes, mx.random.split(key, len(lanes)), *shares, strict=True):
            with mx.stream(lane):
                part = self._rows_gradients(parameters, share, own, scale)
            total = part if total is None else tree_map(mx.add, total, part)
        assert total is not None
        self.model.update(parameters)  # what was differentiated is still in the model
        return total

    def _rows_gradients(self, parameters: dict, arrays: Arrays, key: mx.array, scale: mx.array) -> Gradients:
        def scaled(parameters: dict) -> tuple[mx.array, mx.array, mx.array]:
            self.model.update(parameters if self.precision == "float32" else cast(parameters, self.precision))
            total, count = self.loss(self.model, arrays, key)
            return total * scale, total, count

        (_, total, count), gradients = mx.value_and_grad(scaled)(parameters)
        return total, count, gradients

    def _apply(self, gradients: dict, factor: mx.array, learning_rate: mx.array) -> None:
        self.optimizer.learning_rate = learning_rate
        self.optimizer.update(self.model, tree_map(lambda g: g * factor, gradients))


def clip_factor(norm: float, limit: float | None) -> float:
    """What brings gradients of that norm down to `limit` where they exceed it (Pascanu et al. 2013)."""
    return 1.0 if limit is None else min(limit / (norm + 1e-6), 1.0)


@functools.cache  # a stream has a thread, which stays
def cpu_lanes() -> tuple[mx.Stream, ...]:
    """On a GPU the default stream; on a CPU one stream per core, since MLX runs elementwise work on one core only."""
    device = mx.default_device()
    if device != mx.Device(mx.cpu):
        return (mx.default_stream(device),)
    return tuple(mx.new_stream(device) for _ in range(min(os.cpu_count() or 1, 8)))
