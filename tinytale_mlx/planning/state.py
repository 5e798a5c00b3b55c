"""What stays in memory from step to step, in bytes: weights, the optimiser's state, an average of the weights.

Exact, from the shapes. Weights and averages are float32 whatever a step computes in.
"""

import math

from ..recipe import ModelConfig, TrainRecipe
from .parameters import Shape, count, parameter_shapes

BLOCK = 256
"""Numbers that share a scale in 8 bits, see training/moments.py."""


def weight_bytes(config: ModelConfig) -> int:
    return 4 * count(config)


def average_bytes(config: ModelConfig, train: TrainRecipe) -> int:
    """Of `train.ema` or `train.average_last`: the weights once more."""
    return weight_bytes(config) if train.ema is not None or train.average_last is not None else 0


def optimizer_bytes(config: ModelConfig, train: TrainRecipe) -> int:
    """What the optimiser remembers of each parameter."""
    return sum(_state(name, shape, train) for name, shape in parameter_shapes(config))


def _state(name: str, shape: Shape, train: TrainRecipe) -> int:
    numbers = math.prod(shape)
    match train.optimizer:
        case "lion":  # one momentum
            return 4 * numbers
        case "adam_mini":  # a momentum, and one second moment a row
            return 4 * (numbers + math.prod(shape[:-1]))
        case "adafactor":  # sums of rows and columns
            return 4 * (sum(shape) if len(shape) == 2 else numbers)
        case "muon" if uses_muon(name):
            return 4 * numbers
    return 2 * _moment(shape, train.optimizer_state)


def uses_muon(name: str) -> bool:
    """The matrices inside the blocks; the others are AdamW's."""
    return "layers." in name and name.endswith("proj.weight")


def _moment(shape: Shape, form: str) -> int:
    """One of Adam's moments; those of vectors stay in float32."""
    numbers = math.prod(shape)
    if form == "float32" or len(shape) < 2:
        return 4 * numbers
    blocks = -(-numbers // BLOCK)
    return blocks * BLOCK * 2 if form == "bfloat16" else blocks * (BLOCK + 4)
