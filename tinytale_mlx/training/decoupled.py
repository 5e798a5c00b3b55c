"""What the optimisers share: decoupled weight decay (Loshchilov & Hutter 2019), and arithmetic in float32."""

from abc import ABC, abstractmethod

import mlx.core as mx
import mlx.optimizers as optim


def decayed(parameter: mx.array, rate: mx.array, weight_decay: float) -> mx.array:
    """A matrix a little smaller; anything else as it is: a bias or a norm's weight has no reason to be small."""
    return parameter * (1 - rate * weight_decay) if parameter.ndim >= 2 else parameter


def once(numbers: list[mx.array], before: mx.array) -> list[mx.array]:
    """The same scalars, worked out once. In a compiled update they would become part of the kernel that moves the
    parameter, and a power of the step's number be worked out for each of its elements.

    before: an array that the kernel reads, too.
    """
    return mx.depends(numbers, [before])


class DecoupledOptimizer(optim.Optimizer, ABC):
    """Moves each parameter by `rate` times `direction`, in float32 whatever the parameter is kept in.

    The rate is an array in the state, so that a compiled update takes another one each step.
    """

    def __init__(self, learning_rate: float, weight_decay: float):
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        weights = parameter.astype(mx.float32)
        rate = self.rate(weights)
        direction = self.direction(gradient.astype(mx.float32), state)
        return (decayed(weights, rate, self.weight_decay) - rate * direction).astype(parameter.dtype)

    def rate(self, parameter: mx.array) -> mx.array:
        """The length of this parameter's step, in units of its direction."""
        return self.learning_rate

    @abstractmethod
    def direction(self, gradient: mx.array, state: dict) -> mx.array:
        """Where the loss rises, float32 [shape of the gradient]; brings the parameter's state up to date."""
