"""Optimisers. AdamW: Kingma & Ba 2015 with the decoupled decay of Loshchilov & Hutter 2019."""

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


def make_optimizer(train: TrainRecipe) -> optim.Optimizer:
    return AdamW(train.learning_rate, (train.beta1, train.beta2), train.eps, train.weight_decay)


def clip_by_global_norm(gradients: dict, limit: float | None) -> tuple[dict, mx.array]:
    """Gradients scaled down to norm `limit` where they exceed it (Pascanu et al. 2013), and the norm that they had."""
    norm = global_norm(gradients)
    if limit is None:
        return gradients, norm
    scale = mx.minimum(limit / (norm + 1e-6), 1.0)
    return tree_map(lambda g: g * scale.astype(g.dtype), gradients), norm


def global_norm(gradients: dict) -> mx.array:
    squares = tree_reduce(
        lambda total, g: total + mx.square(g.astype(mx.float32)).sum(), gradients, mx.array(0.0)
    )
    return mx.sqrt(squares)
