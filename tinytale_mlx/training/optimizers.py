"""Optimisers. AdamW: Kingma & Ba 2015 with the decoupled decay of Loshchilov & Hutter 2019."""

from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_map, tree_reduce

from ..recipe import TrainRecipe


class AdamW(optim.Adam):
    """Adam with bias correction, which MLX leaves out by default and every published learning rate assumes.

    Weight decay is decoupled, and on matrices only: a bias or a norm's weight has no reason to be small.
    """

    def __init__(self, learning_rate: float, betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(learning_rate=learning_rate, betas=list(betas), eps=eps, bias_correction=True)
        self.weight_decay = weight_decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        if parameter.ndim >= 2:
            rate = self.learning_rate.astype(parameter.dtype)
            parameter = parameter * (1 - rate * self.weight_decay)
        return super().apply_single(gradient, parameter, state)


class Muon(optim.Optimizer):
    """Momentum whose every step is made orthogonal (Jordan et al. 2024), for matrices inside the blocks.

    All directions of a matrix then move equally far, where Adam's steps are dominated by a few. The step has the root
    mean square of an Adam step at the same rate (Liu et al. 2025), so that one learning rate serves both. Weight decay
    is decoupled.
    """

    def __init__(self, learning_rate: float, momentum: float, weight_decay: float):
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.momentum, self.weight_decay = momentum, weight_decay

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["momentum"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate = self.learning_rate.astype(parameter.dtype)
        state["momentum"] = self.momentum * state["momentum"] + gradient
        step = orthogonalize(gradient + self.momentum * state["momentum"])  # Nesterov's look ahead
        scale = 0.2 * max(parameter.shape) ** 0.5
        return parameter * (1 - rate * self.weight_decay) - rate * scale * step


def orthogonalize(matrix: mx.array, steps: int = 5) -> mx.array:
    """Roughly U Vᵀ of the matrix U S Vᵀ, by Newton-Schulz iterations; singular values end up between 0.7 and 1.2."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (mx.sqrt(mx.square(x).sum()) + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.T


def make_optimizer(train: TrainRecipe) -> optim.Optimizer:
    adamw = AdamW(train.learning_rate, (train.beta1, train.beta2), train.eps, train.weight_decay)
    if train.optimizer == "adamw":
        return adamw
    muon = Muon(train.learning_rate, momentum=0.95, weight_decay=train.weight_decay)
    return optim.MultiOptimizer([muon, adamw], [_inside_block])


def _inside_block(path: str, array: mx.array) -> bool:
    return "layers." in path and path.endswith("proj.weight")


def clip_by_global_norm(gradients: dict, limit: float | None) -> tuple[dict, mx.array]:
    """Gradients scaled down to norm `limit` where they exceed it (Pascanu et al. 2013), and the norm that they had."""
    norm = global_norm(gradients)
    if limit is None:
        return gradients, norm
    scale = mx.minimum(limit / (norm + 1e-6), 1.0)
    return tree_map(lambda g: g * scale.astype(g.dtype), gradients), norm


def global_norm(gradients: dict) -> mx.array:
    squares: Any = tree_reduce(lambda total, g: total + mx.square(g.astype(mx.float32)).sum(), gradients, mx.array(0.0))
    return mx.sqrt(squares)
