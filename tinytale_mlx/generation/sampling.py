"""Choosing the next token: greedy, temperature, top-k (Fan et al. 2018), top-p (Holtzman et al. 2020)."""

import math

import mlx.core as mx


def sample(logits: mx.array, key: mx.array, temperature: float, top_k: int, top_p: float) -> mx.array:
    """Token ids [B] from logits [B, vocabulary].

    Temperature 0 takes the likeliest token; `top_k` 0 and `top_p` 1 leave every token in. The filters act on the
    distribution that the temperature has shaped.
    """
    if temperature == 0:
        return mx.argmax(logits, axis=-1)
    logits = logits.astype(mx.float32) / temperature
    if 0 < top_k < logits.shape[-1]:
        logits = keep_top_k(logits, top_k)
    if top_p < 1:
        logits = keep_top_p(logits, top_p)
    return mx.random.categorical(logits, key=key)


def keep_top_k(logits: mx.array, k: int) -> mx.array:
    """All but the k largest of each row become -inf; of equal ones at the border, all stay."""
    smallest = mx.min(mx.topk(logits, k, axis=-1), axis=-1, keepdims=True)
    return mx.where(logits >= smallest, logits, -math.inf)


def keep_top_p(logits: mx.array, p: float) -> mx.array:
    """All but the smallest set of likeliest tokens whose probabilities sum to p or more become -inf."""
    order = mx.argsort(-logits, axis=-1)
    probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
    before = mx.cumsum(probabilities, axis=-1, inclusive=False)
    # A token stays while the likelier ones have not reached p yet; so the first always does.
    kept = mx.put_along_axis(mx.zeros(logits.shape, mx.bool_), order, before < p, axis=-1)
    return mx.where(kept, logits, -math.inf)
