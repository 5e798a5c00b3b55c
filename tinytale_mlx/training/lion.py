"""Lion (Chen et al. 2023): the sign of a momentum, found by searching over programs. Half of Adam's memory."""

import mlx.core as mx

from .decoupled import DecoupledOptimizer


class Lion(DecoupledOptimizer):
    """Every element moves by exactly the learning rate, which should be 3 to 10 times smaller than AdamW's.

    The sign is that of a quicker average than the one that is kept, so the newest gradient counts for more.
    """

    def __init__(self, learning_rate: float, betas: tuple[float, float], weight_decay: float):
        super().__init__(learning_rate, weight_decay)
        self.betas = betas

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["m"] = mx.zeros(parameter.shape)

    def direction(self, gradient: mx.array, state: dict) -> mx.array:
        (beta1, beta2), m = self.betas, state["m"]
        state["m"] = beta2 * m + (1 - beta2) * gradient
        return mx.sign(beta1 * m + (1 - beta1) * gradient)
