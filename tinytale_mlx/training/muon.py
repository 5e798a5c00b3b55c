"""Muon, the optimiser for matrices inside the blocks: momentum, made orthogonal (Jordan et al. 2024).

All directions of a matrix then move equally far, where Adam's steps are dominated by a few. The step is scaled to the
root mean square of an Adam step at the same rate (Liu et al. 2025), so that one learning rate serves both.
"""

import mlx.core as mx
from mlx.utils import tree_map, tree_map_with_path

from ..models.parameters import named_arrays
from .decoupled import DecoupledOptimizer
from .stacks import stacks


class Muon(DecoupledOptimizer):
    """Weight decay is decoupled."""

    def __init__(self, learning_rate: float, momentum: float, weight_decay: float):
        super().__init__(learning_rate, weight_decay)
        self.momentum = momentum

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["momentum"] = mx.zeros(parameter.shape)

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        if not self._initialized:
            self.init(gradients)
        ahead = tree_map(self._look_ahead, gradients, self.state)
        return super().apply_gradients(orthogonalize_all(ahead), parameters)

    def _look_ahead(self, gradient: mx.array, state: dict) -> mx.array:
        """Nesterov's: where the momentum will have gone."""
        gradient = gradient.astype(mx.float32)
        state["momentum"] = self.momentum * state["momentum"] + gradient
        return gradient + self.momentum * state["momentum"]

    def direction(self, gradient: mx.array, state: dict) -> mx.array:
        """`gradient` is the orthogonal matrix by now."""
        return 0.2 * max(gradient.shape) ** 0.5 * gradient


def orthogonalize_all(matrices: dict) -> dict:
    """`orthogonalize` for a tree of matrices: those of a shape together, as many as fit, one stack after the other."""
    by_name = dict(named_arrays(matrices))
    steps: dict[str, mx.array] = {}
    done = None
    for names in stacks(by_name):
        stack = [by_name[name] for name in names]
        if done is not None:  # lest all stacks be worked on, and kept in memory, at once
            stack = mx.depends(stack, done)
        done = orthogonalize(mx.stack(stack))
        steps |= zip(names, done, strict=True)
    return tree_map_with_path(lambda name, _: steps[name], matrices)


def orthogonalize(x: mx.array, steps: int = 5) -> mx.array:
    """Roughly U Vᵀ of each matrix U S Vᵀ in x [..., m, n].

    By Newton-Schulz iterations with the coefficients of Jordan et al.; singular values end up between 0.7 and 1.2.
    """
    if x.shape[-2] > x.shape[-1]:  # the smaller of the two Gram matrices will do
        return orthogonalize(x.swapaxes(-2, -1), steps).swapaxes(-2, -1)
    x = x / (mx.sqrt(mx.square(x).sum(axis=(-2, -1), keepdims=True)) + 1e-7)
    for _ in range(steps):
        gram = x @ x.swapaxes(-2, -1)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x
