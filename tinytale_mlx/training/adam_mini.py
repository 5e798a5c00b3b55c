"""Adam-mini (Zhang et al. 2024): Adam with one second moment for each row instead of each element. Half the memory."""

import mlx.core as mx

from .decoupled import DecoupledOptimizer, once


class AdamMini(DecoupledOptimizer):
    """A row is what makes one output of a matrix, or one token's embedding; a vector counts as one row.

    Along a row the Hessian's blocks are dense, and one rate does as well as many. (For queries and keys the paper
    takes all rows of a head together; single rows are the finer cut, and cost next to nothing.)
    """

    def __init__(self, learning_rate: float, betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(learning_rate, weight_decay)
        self.betas, self.eps = betas, eps

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["m"] = mx.zeros(parameter.shape)
        state["v"] = mx.zeros([*parameter.shape[:-1], 1])

    def direction(self, gradient: mx.array, state: dict) -> mx.array:
        beta1, beta2 = self.betas
        state["m"] = beta1 * state["m"] + (1 - beta1) * gradient
        state["v"] = beta2 * state["v"] + (1 - beta2) * mx.square(gradient).mean(axis=-1, keepdims=True)
        scales = once([1 / (1 - beta1**self.step), 1 / (1 - beta2**self.step)], gradient)
        m, v = state["m"] * scales[0], state["v"] * scales[1]
        return m / (mx.sqrt(v) + self.eps)
