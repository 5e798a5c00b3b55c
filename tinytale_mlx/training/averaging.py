"""Averages of the weights, which often do better than the last ones: they sit in the middle of where training jitters.

An exponential moving average (Polyak & Juditsky 1992) of all steps, or the plain one of the last part of training
(stochastic weight averaging, Izmailov et al. 2018). Either way, after each step the average goes a share of the way
to the new weights. The share is a function of the step, so an average that is saved goes on exactly from where it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from ..recipe import TrainRecipe


def averages(train: TrainRecipe) -> bool:
    """Whether the recipe asks for an average."""
    return train.ema is not None or train.average_last is not None


def share_of(steps: int, train: TrainRecipe) -> float:
    """What the weights after `steps` >= 1 steps count for in the average of all up to them; 1 makes them the average.

    Of the moving average, with decay d: (1 - d) / (1 - d^steps), so that the first weights count for no more than their
    part, as with Adam's bias correction. Of the plain one: 1 / n for the n-th of the steps that it is over.
    """
    if train.ema is not None:
        return (1 - train.ema) / (1 - train.ema**steps)
    return 1 / max(steps - first_averaged(train) + 1, 1)


def first_averaged(train: TrainRecipe) -> int:
    """After how many steps the weights count for the first time."""
    if train.average_last is None:
        return 1
    return train.steps - max(round(train.average_last * train.steps), 1) + 1


class WeightAverage:
    """The average of a tree of weights, in float32; before anything is averaged, those that it starts with.

    `weights` is what to save; it may be assigned. Together with the number of steps done it is all there is to know.
    """

    def __init__(self, weights: dict):
        self.weights = _in_float32(weights)

    def update(self, weights: dict, share: float) -> None:
        """Go that share of the way to the weights, 0 to 1."""
        if share == 1:  # exactly
            self.weights = _in_float32(weights)
        else:
            self.weights = _towards(self.weights, weights, mx.array(share))
        mx.eval(self.weights)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the average, in its own dtype; afterwards its weights again, the very same arrays."""
        own = model.trainable_parameters()
        model.update(tree_map(lambda mean, array: mean.astype(array.dtype), self.weights, own))
        try:
            yield
        finally:
            model.update(own)


def _in_float32(weights: dict) -> dict:
    return tree_map(lambda array: array.astype(mx.float32), weights)


@mx.compile
def _towards(means: dict, weights: dict, share: mx.array) -> dict:
    return tree_map(lambda mean, array: mean + share * (array.astype(mx.float32) - mean), means, weights)
