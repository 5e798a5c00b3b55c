"""One optimiser step: gradients of the summed loss over all micro-batches, one division, clipping, one update.

Losses travel as (Σ loss, Σ weights), so an accumulated step weighs every token alike, however unevenly the
micro-batches are filled.

What is in memory at the peak, in numbers of 4 bytes, with P parameters, N tokens in a micro-batch, width d,
feed-forward width f, context T, V tokens in the vocabulary, and h heads:

- always: weights P and optimiser state, 2 P with AdamW
- gradients P, of which a layer's are there when the way back has passed it; with accumulation P more, the sum so far
- activations of every layer, about N (5 d + 2 f): what goes in, what the heads get and say, and what goes into the
  activation; for the half of a layer that is at work the rest too, N (7 d + 3 f + 3 h T). With gradient checkpointing
  2 N d of every layer, the inputs of attention and of feed-forward
- logits, about 3 N V; in chunks of n tokens 3 n V, and the gradient of the head twice while it is added up
- in the update, neither activations nor logits, but new weights and state of one stack (`update.py`)

And what MLX has handed out ahead: on a CPU it prepares a hundred operations ahead of the one that is being computed,
unless memory is at its limit (`mx.set_memory_limit`). With checkpointing that is as much again as the half layer needs.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from .. import blas
from ..models.parameters import named_arrays
from ..recipe.training import Precision
from .losses import token_loss
from .precision import LossScale, cast, prepare
from .update import Update, clip_factor, global_norm

Arrays = Sequence[mx.array | None]
"""A micro-batch: arrays whose first axis is the batch, and None for what it lacks."""
Found = tuple[mx.array, mx.array] | tuple[mx.array, mx.array, Mapping[str, mx.array]]
Loss = Callable[[Any, Arrays, mx.array], Found]
"""`loss(model, arrays, key)` is (Σ loss, Σ weights), float32 scalars; `key` is what dropout draws from.

What else it saw may come third, {name: a sum of anything}: it costs no second forward pass, and has no gradient."""
Gradients = tuple[mx.array, mx.array, dict[str, mx.array]]
"""Σ loss, Σ weights, and the gradient of Σ loss x loss scale by each parameter, by name.

The loss's further sums are there as well, by `FURTHER` and their name: all are added up alike."""
FURTHER = "Σ "
"""No name of a parameter begins so."""


class StepResult(NamedTuple):
    nats: float
    tokens: float
    grad_norm: float
    """Before clipping, of the mean loss."""
    applied: bool = True
    """False where something was not finite: the model and the optimiser then are as they were."""
    loss_scale: float = 1.0
    """That of this step."""


class Step:
    """`step(micro_batches, learning_rate, key)` moves the model and the optimiser's state, and says how it went.

    Gradients and update are compiled; a micro-batch's activations are freed before the next one starts. To go on from
    a checkpoint, load it first.

    `all_sum` adds up what several processes found, see `distributed.py`. `around(key)` is entered around each gradient,
    the way back included: there adapters get their dropout's keys.

    Of a model of several that share no parameters, the loss may be one for each, by the name of the submodule: then the
    activations of one are gone before the next one's are made. The losses are added up; the weights are the first's.

    `measured` holds the further sums of the last step's loss, from before its update.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        max_grad_norm: float | None,
        loss: Loss | Mapping[str, Loss] = token_loss,
        precision: Precision = "float32",
        loss_scale: LossScale | None = None,
        all_sum: Callable[[Gradients], Gradients] | None = None,
        around: Callable[[mx.array], AbstractContextManager[None]] = lambda key: nullcontext(),
    ):
        self.model, self.optimizer, self.max_grad_norm = model, optimizer, max_grad_norm
        self.loss, self.all_sum, self.around = loss, all_sum, around
        self.precision: Precision = precision
        self.loss_scale = loss_scale or LossScale()
        self.lanes = cpu_lanes()
        self.measured: dict[str, float] = {}
        prepare(model, precision)
        optimizer.init(model.trainable_parameters())
        self._gradients = mx.compile(self._batch_gradients, inputs=[model.state])
        self._norm = mx.compile(global_norm)
        self._update = Update(model, optimizer)

    def __call__(
        self, micro_batches: Iterable[Sequence[np.ndarray | None]], learning_rate: float, key: mx.array
    ) -> StepResult:
        """One update from batches: tuples of arrays, as the loss takes them. `key` is what dropout draws from."""
        with blas.single_threaded() if len(self.lanes) > 1 else nullcontext():
            total = self._sum(micro_batches, key)
            nats, count, gradients = total if self.all_sum is None else self.all_sum(total)
            del total
            names = [name for name in gradients if name.startswith(FURTHER)]
            self.measured = {name.removeprefix(FURTHER): float(gradients.pop(name)) for name in names}
            divisor = max(float(count), 1.0) * self.loss_scale.factor
            norm = float(self._norm(gradients)) / divisor
            applied = math.isfinite(float(nats)) and math.isfinite(norm)
            result = StepResult(float(nats), float(count), norm, applied, self.loss_scale.value)
            if applied:
                self._update(gradients, clip_factor(norm, self.max_grad_norm) / divisor, learning_rate)
            if math.isfinite(result.nats):  # else the forward pass failed, which no scale would mend
                self.loss_scale.update(applied)
        return result

    def _sum(self, micro_batches: Iterable[Sequence[np.ndarray | None]], key: mx.array) -> Gradients:
        """Over all micro-batches. One is done before the next begins, and is added in place."""
        total: Gradients | None = None
        scale = mx.array(self.loss_scale.factor)
        for batch in micro_batches:
            key, own = mx.random.split(key)
            arrays = [None if array is None else mx.array(array) for array in batch]
            total = _added(total, self._gradients(arrays, own, scale))
            mx.eval(total)
        if total is None:
            raise ValueError("a step needs at least one micro-batch")
        return total

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
            total = _added(total, part)
        assert total is not None
        self.model.update(parameters)  # what was differentiated is still in the model
        return total

    def _rows_gradients(self, parameters: dict, arrays: Arrays, key: mx.array, scale: mx.array) -> Gradients:
        """Of the loss by all parameters, or of several losses, each by those of its submodule, one after the other."""
        if not isinstance(self.loss, Mapping):
            return self._loss_gradients(self.loss, parameters, arrays, key, scale)
        found: Gradients | None = None
        for name, loss in self.loss.items():
            here = arrays if found is None else _after(arrays, list(found[2].values()))
            nats, count, gradients = self._loss_gradients(loss, {name: parameters[name]}, here, key, scale)
            found = (nats, count, gradients) if found is None else (found[0] + nats, found[1], found[2] | gradients)
        assert found is not None
        return found

    def _loss_gradients(
        self, loss: Loss, parameters: dict, arrays: Arrays, key: mx.array, scale: mx.array
    ) -> Gradients:
        def scaled(parameters: dict) -> tuple[mx.array, mx.array, mx.array, Mapping[str, mx.array]]:
            self.model.update(parameters if self.precision == "float32" else cast(parameters, self.precision))
            total, count, *further = loss(self.model, arrays, key)
            return total * scale, total, count, further[0] if further else {}

        with self.around(key):
            (_, total, count, further), gradients = mx.value_and_grad(scaled)(parameters)
        sums = {FURTHER + name: array for name, array in further.items()}
        return total, count, {**dict(named_arrays(gradients)), **sums}


def _after(arrays: Arrays, others: list[mx.array]) -> Arrays:
    """The arrays, for what is to be computed when the others are there."""
    there = iter(mx.depends([array for array in arrays if array is not None], others))
    return [None if array is None else next(there) for array in arrays]


def _added(total: Gradients | None, part: Gradients) -> Gradients:
    """The sum, in the memory of `total`: nothing but the sum refers to its arrays, or to those of `part`, any more."""
    if total is None:
        return part
    nats, count, gradients = total
    more = part[2]
    for name in gradients:
        gradients[name] = gradients[name] + more.pop(name)
    return nats + part[0], count + part[1], gradients


@functools.cache  # a stream has a thread, which stays
def cpu_lanes() -> tuple[mx.Stream, ...]:
    """On a GPU the default stream; on a CPU one stream per core, since MLX runs elementwise work on one core only."""
    device = mx.default_device()
    if device != mx.Device(mx.cpu):
        return (mx.default_stream(device),)
    return tuple(mx.new_stream(device) for _ in range(min(os.cpu_count() or 1, 8)))
