"""What every method here begins with: which tokens are the response, and how likely the model finds them.

A response ends with its first EOS, which is part of it: the model chose to stop. What stands behind is padding, known
by the mask and never by its id, so that a padding id that equals EOS does no harm.
"""

import mlx.core as mx


def response_mask(tokens: mx.array, eos: int) -> mx.array:
    """1 up to and including the first EOS of each row, 0 behind; tokens [B, T] integers, result float32 [B, T]."""
    ends = (tokens == eos).astype(mx.int32)
    return (mx.cumsum(ends, axis=-1) - ends == 0).astype(mx.float32)


def token_logps(logits: mx.array, tokens: mx.array, temperature: float = 1.0) -> mx.array:
    """log π(token), float32 [..., T], where logits [..., T, vocabulary] are those that each token was drawn from.

    A policy sampled at a temperature is scored at the same one, or the ratio of new to old is not 1 at the start.
    """
    logits = logits.astype(mx.float32) / temperature
    chosen = mx.take_along_axis(logits, tokens[..., None], axis=-1).squeeze(-1)
    return chosen - mx.logsumexp(logits, axis=-1)


def entropy(logits: mx.array, temperature: float = 1.0) -> mx.array:
    """-Σ π log π in nats, float32 [...]; logits [..., vocabulary]."""
    logits = logits.astype(mx.float32) / temperature
    total = mx.logsumexp(logits, axis=-1)
    return total - (mx.softmax(logits, axis=-1) * logits).sum(axis=-1)


def masked_sum(x: mx.array, mask: mx.array) -> mx.array:
    """Σ x where mask is 1, along the last axis. What is masked may be anything, NaN too."""
    return mx.where(mask > 0, x * mask, 0).sum(axis=-1)


def masked_mean(x: mx.array, mask: mx.array) -> mx.array:
    """Over all of x, a scalar; 0 where the mask is empty."""
    return masked_sum(x, mask).sum() / mx.maximum(mask.sum(), 1)


def masked_whiten(x: mx.array, mask: mx.array, shift_mean: bool = True) -> mx.array:
    """x with mean 0 and variance 1 over the mask; 0 elsewhere. `shift_mean=False` keeps the mean.

    The variance is the population's (ddof 0), as in Ziegler et al. 2019.
    """
    mean = masked_mean(x, mask)
    variance = masked_mean(mx.square(x - mean), mask)
    white = (x - mean) * mx.rsqrt(variance + 1e-8) + (0 if shift_mean else mean)
    return mx.where(mask > 0, white, 0)
