"""One optimiser step: gradients of the summed loss over all micro-batches, one division, clipping, one update.

Losses travel as (Σ nats, Σ weights), so an accumulated step weighs every token alike, however unevenly the
micro-batches are filled.
"""

import functools
import os
from collections.abc import Iterable
from contextlib import nullcontext
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from .. import blas
from ..data.batches import Batch
from ..models.transformer import Transformer
from .losses import next_token_loss
from .optimizers import clip_by_global_norm

Gradients = tuple[mx.array, mx.array, dict]
"""Σ nats, Σ weights, and the gradient of Σ nats."""


class StepResult(NamedTuple):
    nats: float
    tokens: float
    grad_norm: float
    """Before clipping, of the mean loss."""


class Step:
    """`step(micro_batches, learning_rate, key)` moves the model and the optimiser's state, and says how it went.

    Both halves are compiled; a micro-batch's activations are freed before the next one starts. To go on from a
    checkpoint, load it first: the compiled update holds on to the arrays of the optimiser's state.
    """

    def __init__(self, model: Transformer, optimizer: optim.Optimizer, max_grad_norm: float | None):
        self.model, self.optimizer, self.max_grad_norm = model, optimizer, max_grad_norm
        self.lanes = cpu_lanes()
        optimizer.init(model.trainable_parameters())
        state = [model.state, optimizer.state]
        self._gradients = mx.compile(self._batch_gradients, inputs=[model.state])
        self._update = mx.compile(self._apply, inputs=state, outputs=state)

    def __call__(
        self, micro_batches: Iterable[Batch | tuple[np.ndarray, np.ndarray]], learning_rate: float, key: mx.array
    ) -> StepResult:
        """One update from batches, or pairs of tokens and weights; `key` is what dropout draws from."""
        total: Gradients | None = None
        with blas.single_threaded() if len(self.lanes) > 1 else nullcontext():
            for tokens, weights, *rest in micro_batches:
                key, own = mx.random.split(key)
                segments = mx.array(rest[0]) if rest and rest[0] is not None else None
                part = self._gradients(mx.array(tokens), mx.array(weights), own, segments)
                total = part if total is None else tree_map(mx.add, total, part)
                mx.eval(total)
            if total is None:
                raise ValueError("a step needs at least one micro-batch")
            nats, count, gradients = total
            norm = self._update(gradients, count, mx.array(learning_rate))
            mx.eval(self.model.parameters(), self.optimizer.state, norm)
        return StepResult(float(nats), float(count), float(norm))

    def _batch_gradients(
        self, tokens: mx.array, weights: mx.array, key: mx.array, segments: mx.array | None
    ) -> Gradients:
        """The rows are shared out among the lanes; each lane is a stream, so they run side by side."""
        lanes = self.lanes[: tokens.shape[0]]
        borders = [len(tokens) * i // len(lanes) for i in range(1, len(lanes))]
        parameters = self.model.trainable_parameters()
        total: Gradients | None = None
        for lane, rows, row_weights, own, row_segments in zip(
            lanes,
            mx.split(tokens, borders),
            mx.split(weights, borders),
            mx.random.split(key, len(lanes)),
            [None] * len(lanes) if segments is None else mx.split(segments, borders),
            strict=True,
        ):
            with mx.stream(lane):
                part = self._rows_gradients(rows, row_weights, own, row_segments)
            total = part if total is None else tree_map(mx.add, total, part)
        assert total is not None
        self.model.update(parameters)  # value_and_grad leaves its tracers in the model
        return total

    def _rows_gradients(
        self, tokens: mx.array, weights: mx.array, key: mx.array, segments: mx.array | None
    ) -> Gradients:
        inside = None if segments is None else segments[:, :-1]

        def loss(tokens: mx.array, weights: mx.array) -> mx.array:
            return next_token_loss(self.model(tokens[:, :-1], key=key, segments=inside), tokens, weights)

        nats, gradients = nn.value_and_grad(self.model, loss)(tokens, weights)
        return nats, weights.sum(), gradients

    def _apply(self, gradients: dict, tokens: mx.array, learning_rate: mx.array) -> mx.array:
        gradients = tree_map(lambda g: g / mx.maximum(tokens, 1), gradients)
        gradients, norm = clip_by_global_norm(gradients, self.max_grad_norm)
        self.optimizer.learning_rate = learning_rate
        self.optimizer.update(self.model, gradients)
        return norm


@functools.cache  # a stream has a thread, which stays
def cpu_lanes() -> tuple[mx.Stream, ...]:
    """On a GPU the default stream; on a CPU one stream per core, since MLX runs elementwise work on one core only."""
    device = mx.default_device()
    if device != mx.Device(mx.cpu):
        return (mx.default_stream(device),)
    return tuple(mx.new_stream(device) for _ in range(min(os.cpu_count() or 1, 8)))
