"""Adafactor (Shazeer & Stern 2018): Adam's second moment of a matrix from its row and column sums, and no first one.

For a matrix [n, m] that is n + m numbers of state instead of Adam's 2 n m.
"""

import mlx.core as mx

from .decoupled import DecoupledOptimizer

TINY = 1e-30
"""Added to the squares of gradients (ε1), so that a row without any is not divided by zero."""
SMALLEST = 1e-3
"""What a parameter near zero is taken to measure (ε2)."""
CLIP = 1.0
"""The largest root mean square of a direction (d): a second moment that is out of date makes too long a step."""


class Adafactor(DecoupledOptimizer):
    """The rate comes from the schedule; with `relative_step` it is multiplied by the parameter's root mean square.

    Needs no bias correction: the second moment forgets at 1 - t^-0.8, all at step t = 1 and ever less from then on.
    """

    def __init__(self, learning_rate: float, weight_decay: float, relative_step: bool = False):
        super().__init__(learning_rate, weight_decay)
        self.relative_step = relative_step

    def init_single(self, parameter: mx.array, state: dict) -> None:
        if parameter.ndim >= 2:
            *rest, rows, columns = parameter.shape
            state["rows"], state["columns"] = mx.zeros([*rest, rows, 1]), mx.zeros([*rest, 1, columns])
        else:
            state["v"] = mx.zeros(parameter.shape)

    def rate(self, parameter: mx.array) -> mx.array:
        if not self.relative_step:
            return self.learning_rate
        return self.learning_rate * mx.maximum(root_mean_square(parameter), SMALLEST)

    def direction(self, gradient: mx.array, state: dict) -> mx.array:
        new = self.step.astype(mx.float32) ** -0.8
        squares = mx.square(gradient) + TINY
        if "v" in state:
            state["v"] = state["v"] + new * (squares - state["v"])
            direction = gradient * mx.rsqrt(state["v"])
        else:
            rows = state["rows"] + new * (squares.mean(axis=-1, keepdims=True) - state["rows"])
            columns = state["columns"] + new * (squares.mean(axis=-2, keepdims=True) - state["columns"])
            state["rows"], state["columns"] = rows, columns
            direction = gradient * mx.rsqrt(rows / rows.mean(axis=-2, keepdims=True)) * mx.rsqrt(columns)
        return direction / mx.maximum(root_mean_square(direction) / CLIP, 1.0)


def root_mean_square(x: mx.array) -> mx.array:
    return mx.sqrt(mx.square(x).mean())
