"""Losses as pure functions of arrays. They return sums; who divides, by what, is decided once per optimiser step."""

from collections.abc import Sequence

import mlx.core as mx

from ..models.elementary import polynomial_exp, scalar_exp, with_vjp
from ..models.transformer import Transformer


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Nats per token: -log softmax(logits)[target], in float32.

    logits [..., vocabulary] of any float type, targets [...] integers; returns float32 [...].
    """
    logits = logits.astype(mx.float32)
    return _cross_entropy(logits, targets)[0] if scalar_exp() else _fused_cross_entropy(logits, targets)


def _fused_cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return mx.logsumexp(logits, axis=-1) - chosen


@with_vjp
def _cross_entropy(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """The same with its derivative written out: the exponentials are computed once and kept, with their sum."""
    top = logits.max(axis=-1, keepdims=True)
    e = polynomial_exp(logits - top)
    total = e.sum(axis=-1, keepdims=True)
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1)
    return (top + mx.log(total) - chosen).squeeze(-1), e, total


@_cross_entropy.vjp
def _cross_entropy_vjp(primals, cotangents, outputs):
    """softmax(logits) - onehot(target), times the cotangent of each token."""
    targets, cotangent = primals[1], cotangents[0][..., None]
    _, e, total = outputs
    gradient = e * (cotangent / total)
    at_target = mx.take_along_axis(gradient, targets[..., None], axis=-1) - cotangent
    return mx.put_along_axis(gradient, targets[..., None], at_target, axis=-1), mx.zeros_like(targets)


def next_token_loss(logits: mx.array, tokens: mx.array, weights: mx.array) -> mx.array:
    """Σ weight x nats of predicting tokens[:, 1:] from what stands before them.

    logits [B, T, vocabulary] for tokens[:, :-1]; tokens [B, T+1]; weights [B, T]; returns a float32 scalar.
    A token of weight 0 counts for nothing, whatever its id.
    """
    targets = mx.where(weights > 0, tokens[:, 1:], 0)  # an id such as -100 lies outside the logits
    return (cross_entropy(logits, targets) * weights).sum()


def token_loss(model: Transformer, arrays: Sequence[mx.array | None], key: mx.array) -> tuple[mx.array, mx.array]:
    """The language-modelling loss of a batch: (Σ weight x nats, Σ weight), float32 scalars.

    arrays: tokens [B, T+1], weights [B, T], and segments [B, T+1] where each document is to be read alone.
    """
    tokens, weights, segments = [*arrays, None][:3]
    assert tokens is not None
    assert weights is not None
    inside = None if segments is None else segments[:, :-1]
    return next_token_loss(model(tokens[:, :-1], key=key, segments=inside), tokens, weights), weights.sum()
