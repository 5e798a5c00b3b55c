"""Which optimiser a recipe means. The optimisers themselves have modules of their own."""

import mlx.core as mx
import mlx.optimizers as optim

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
