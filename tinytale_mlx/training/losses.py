"""Losses as pure functions of arrays. They return sums; who divides, by what, is decided once per optimiser step.

Logits are the largest arrays of a small model: [tokens, vocabulary], and training needs several of that size, logits,
exponentials and gradient. `chunked_loss` never has those of a whole batch: a few tokens get their logits, their loss
and at once the gradients of their hidden states and of the head, then the next few (Hsu et al. 2024, "Liger Kernel").
That takes as many operations as ever; nothing is computed twice.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from ..models.elementary import polynomial_exp, scalar_exp, with_vjp
from ..models.parameters import named_arrays
from ..models.transformer import Transformer

LIFT = 2.0**14
"""Chunks compute the gradient of about so many times their mean loss, and divide it again in float32: in float16 the
gradients of unlikely tokens would vanish with less, before a loss scale reaches them, and sums over frequent ones
overflow with more. A power of two changes nothing else."""


FROZEN_HEAD_CHUNK = 128
"""Tokens per chunk where the head is frozen, as under an adapter: then chunks have no gradients of the head to add up,
so that they cost nothing, and nobody has to ask for them."""


def perplexity(loss: float) -> float:
    """e^loss for nats per token; from 700 on, as large as a float can be."""
    return math.exp(min(loss, 700))


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


def token_loss(
    model: Transformer, arrays: Sequence[mx.array | None], key: mx.array, chunk_tokens: int | None = None
) -> tuple[mx.array, mx.array]:
    """The language-modelling loss of a batch: (Σ weight x nats, Σ weight), float32 scalars.

    arrays: tokens [B, T+1], weights [B, T], and segments [B, T+1] where each document is to be read alone. With
    `chunk_tokens`, the logits of only so many tokens exist at a time; with a frozen head they always are few.
    """
    tokens, weights, segments = [*arrays, None][:3]
    assert tokens is not None
    assert weights is not None
    inside = None if segments is None else segments[:, :-1]
    hidden = model.hidden(tokens[:, :-1], key=key, segments=inside)
    if chunk_tokens is None and _head_is_frozen(model):
        chunk_tokens = FROZEN_HEAD_CHUNK
    if chunk_tokens is None:
        return next_token_loss(model.logits(hidden), tokens, weights), weights.sum()
    return chunked_loss(model, hidden, tokens, weights, chunk_tokens), weights.sum()


def _head_is_frozen(model: Any) -> bool:
    """False for a model that does not say what its head is."""
    head = getattr(model, "head", None)
    return head is not None and not named_arrays(head.trainable_parameters())


def chunked_loss(
    model: Transformer, hidden: mx.array, tokens: mx.array, weights: mx.array, chunk_tokens: int
) -> mx.array:
    """`next_token_loss` of hidden states [B, T, hidden]; the logits of only so many tokens exist at a time.

    Can be differentiated by the hidden states and by the trainable parameters of the head. The gradients are made
    together with the loss, so that what only wants the loss should ask `chunked_nats`.
    """
    head, lift = model.head, LIFT / 2 ** (chunk_tokens - 1).bit_length()
    parameters = head.trainable_parameters()
    names = [name for name, _ in named_arrays(parameters)]

    def lifted(hidden: mx.array, arrays: list[mx.array], targets: mx.array, weights: mx.array) -> mx.array:
        head.update(tree_unflatten(list(zip(names, arrays, strict=True))) if names else {})
        nats = (cross_entropy(model.logits(hidden), targets) * weights).sum()
        head.update(parameters)
        return lift * nats

    @with_vjp
    def run(hidden: mx.array, *arrays: mx.array) -> tuple[mx.array, ...]:
        nats, to_hidden, to_head = mx.array(0.0), [], []
        for chunk in _chunks(hidden, tokens, weights, chunk_tokens):
            own, targets, weight = mx.depends(chunk, [nats, *to_head])  # one chunk after the other
            part, (to_own, to_arrays) = mx.value_and_grad(lifted, argnums=(0, 1))(own, list(arrays), targets, weight)
            wide = [g.astype(mx.float32) for g in to_arrays]
            to_head = [total + g for total, g in zip(to_head, wide, strict=True)] if to_head else wide
            to_hidden.append(to_own)
            [nats] = mx.depends([nats + part], [to_own])
        return nats / lift, mx.concatenate(to_hidden).reshape(hidden.shape), *to_head

    @run.vjp
    def _back(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        factor = cotangents[0] / lift
        inputs = primals if isinstance(primals, tuple | list) else [primals]
        return tuple((factor * g).astype(of.dtype) for of, g in zip(inputs, outputs[1:], strict=True))

    return run(hidden, *(array for _, array in named_arrays(parameters)))[0]


def chunked_nats(
    model: Transformer, hidden: mx.array, tokens: mx.array, weights: mx.array, chunk_tokens: int
) -> mx.array:
    """`chunked_loss` without its gradients, for evaluation."""
    nats = mx.array(0.0)
    for chunk in _chunks(hidden, tokens, weights, chunk_tokens):
        own, targets, weight = mx.depends(chunk, [nats])
        nats = nats + (cross_entropy(model.logits(own), targets) * weight).sum()
    return nats


def _chunks(hidden: mx.array, tokens: mx.array, weights: mx.array, size: int) -> Iterator[list[mx.array]]:
    """Hidden states [size, hidden], targets [size] and weights [size] of so many tokens at a time."""
    targets = mx.where(weights > 0, tokens[:, 1:], 0)
    flat = [hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1), weights.reshape(-1)]
    for start in range(0, weights.size, size):
        yield [array[start : start + size] for array in flat]
