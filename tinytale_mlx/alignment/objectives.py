"""The losses of policy gradients, per token, to be summed over a mask by who calls them. Lower is better.

The clipped objective of PPO (Schulman et al. 2017, eq. 7) takes the worse of two estimates, so a token that has moved
far in the direction of its advantage has no gradient any more; one that moved against it always has.
"""

import mlx.core as mx


def policy_loss(
    logps: mx.array, old_logps: mx.array, advantages: mx.array, low: float = 0.2, high: float | None = None
) -> mx.array:
    """-min(ρ A, clip(ρ, 1-low, 1+high) A) with ρ = π/π_old; all of one shape, [B, T] or [B] for whole responses.

    `high` above `low` leaves rare tokens more room to grow (DAPO, Yu et al. 2025); left out, it is `low`.
    """
    ratio = mx.exp(logps - old_logps)
    clipped = mx.clip(ratio, 1 - low, 1 + (low if high is None else high))
    return -mx.minimum(ratio * advantages, clipped * advantages)


def clipped_share(
    logps: mx.array, old_logps: mx.array, advantages: mx.array, low: float = 0.2, high: float | None = None
) -> mx.array:
    """1 where the clip takes the gradient away, else 0; shapes as `policy_loss`."""
    ratio = mx.exp(logps - old_logps)
    above = (advantages > 0) & (ratio > 1 + (low if high is None else high))
    return (above | ((advantages < 0) & (ratio < 1 - low))).astype(mx.float32)


def value_loss(values: mx.array, old_values: mx.array, returns: mx.array, clip: float | None = 0.2) -> mx.array:
    """½ (V - G)², or the larger one of that and its version with V kept within `clip` of what it was; any shape."""
    plain = mx.square(values - returns)
    if clip is None:
        return plain / 2
    near = old_values + mx.clip(values - old_values, -clip, clip)
    return mx.maximum(plain, mx.square(near - returns)) / 2


def sequence_log_ratio(logps: mx.array, old_logps: mx.array, mask: mx.array) -> mx.array:
    """Mean of log π/π_old over a response's tokens (GSPO, Zheng et al. 2025, eq. 7); [B, T] each, returns [B].

    For `policy_loss` it is the new log-probability, and the old one is 0.
    """
    difference = mx.where(mask > 0, logps - old_logps, 0)
    return difference.sum(axis=-1) / mx.maximum(mask.sum(axis=-1), 1)
