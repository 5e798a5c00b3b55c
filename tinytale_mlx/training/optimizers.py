"""Which optimiser a recipe means, and the norm of gradients. The optimisers themselves have modules of their own."""

from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_map, tree_reduce

from ..recipe import TrainRecipe
from .adafactor import Adafactor
from .adam_mini import AdamMini
from .adamw import AdamW, LowBitAdamW
from .lion import Lion
from .muon import Muon


def make_optimizer(train: TrainRecipe) -> optim.Optimizer:
    rate, decay, betas = train.learning_rate, train.weight_decay, (train.beta1, train.beta2)
    match train.optimizer:
        case "adafactor":
            return Adafactor(rate, decay, train.relative_step)
        case "lion":
            return Lion(rate, betas, decay)
        case "adam_mini":
            return AdamMini(rate, betas, train.eps, decay)
    if train.optimizer_state == "float32":
        adamw = AdamW(rate, betas, train.eps, decay)
    else:
        adamw = LowBitAdamW(rate, betas, train.eps, decay, train.optimizer_state)
    if train.optimizer == "adamw":
        return adamw
    return optim.MultiOptimizer([Muon(rate, momentum=0.95, weight_decay=decay), adamw], [_inside_block])


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
