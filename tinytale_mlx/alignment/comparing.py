"""How good a reward model is, by pairs that it has not seen: how often right, how sure, and whether length fools it."""

import math
from typing import Any

import numpy as np

BUCKETS = (0.5, 1.0, 2.0)
"""Borders of |difference of rewards|."""


def comparison_metrics(
    chosen: np.ndarray, rejected: np.ndarray, lengths: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, Any]:
    """Figures of pairs: rewards [N] of the chosen and of the rejected responses, and both their numbers of tokens.

    - loss, accuracy (ties are half right), margin; mean, std, min and max of each side
    - calibration: what the rewards should be multiplied by to say how sure they may be; 1 is right, less is too sure.
      None where no finite number would do, since all pairs are right, or wrong
    - accuracy_by_difference: of pairs with a |difference| below 0.5, 1, 2, and above
    - accuracy_chosen_longer, accuracy_chosen_shorter: alike, unless the model goes by length
    """
    difference = chosen.astype(np.float64) - rejected
    right = (difference > 0) + 0.5 * (difference == 0)
    found: dict[str, Any] = {
        "pairs": len(difference),
        "loss": float(np.logaddexp(0, -difference).mean()),
        "accuracy": float(right.mean()),
        "margin": float(difference.mean()),
        "calibration": calibration(difference),
    }
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        found |= {f"{name}_{f}": float(getattr(side, f)()) for f in ("mean", "std", "min", "max")}
    bucket = np.digitize(np.abs(difference), BUCKETS)
    found["accuracy_by_difference"] = [_mean(right[bucket == i]) for i in range(len(BUCKETS) + 1)]
    if lengths is not None:
        longer = lengths[0].astype(np.int64) - lengths[1]
        found["accuracy_chosen_longer"] = _mean(right[longer > 0])
        found["accuracy_chosen_shorter"] = _mean(right[longer < 0])
    return found


def calibration(difference: np.ndarray) -> float | None:
    """The a that maximises Σ log σ(a x difference): logistic regression through the origin, by bisection."""
    if not (difference > 0).any() or not (difference < 0).any():
        return None

    def slope(a: float) -> float:
        return float((difference * np.exp(-np.logaddexp(0, a * difference))).sum())

    low, high = -1.0, 1.0
    while slope(high) > 0:
        high *= 2
    while slope(low) < 0:
        low *= 2
    while high - low > 1e-9 * max(abs(high), abs(low), 1):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def deviation_of_mean(values: np.ndarray) -> float:
    """The standard error; infinite of a single value."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
