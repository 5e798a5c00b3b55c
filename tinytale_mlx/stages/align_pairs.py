"""What a reward model and DPO share: optimiser steps on batches of rows, and their loss on rows that are held out."""

from collections.abc import Callable, Iterable
from typing import Any

import mlx.core as mx
import numpy as np

from ..alignment.measured import MeasuredLoss, MeasuredStep
from ..alignment.pairs import ShuffledRows
from ..alignment.scoring import micro_batches
from ..recipe import TrainRecipe
from ..training.step import StepResult
from .align_session import AlignSession


class PairSession(AlignSession):
    stepper: Any
    """A `MeasuredStep`, or what takes such steps."""
    arrays: Any
    """Of NumPy, a row for each prompt or pair, with the mask of its responses third."""
    weight = 1.0
    """Of the last batch."""

    @property
    def train(self) -> TrainRecipe:
        assert isinstance(self.recipe.train, TrainRecipe)
        return self.recipe.train

    rows_key = "train.batch_size"

    @property
    def rows_at_a_time(self) -> int:
        return 2 * self.train.batch_size

    def measured_step(self, loss: MeasuredLoss) -> MeasuredStep:
        return MeasuredStep(self.model, loss, self.optimizer, self.train.max_grad_norm)

    def step(self) -> tuple[Any, Callable[[int], Any]]:
        return self._take, ShuffledRows(self.arrays, self.train.batch_size, self.recipe.seed).at

    def _take(self, batches: Iterable[Any], learning_rate: float, key: mx.array) -> StepResult:
        result = self.stepper(batches, learning_rate, key)
        self.weight = max(result.tokens, 1.0)
        return result

    @property
    def measured(self) -> dict[str, float]:
        return self.stepper.measured

    def step_figures(self) -> dict[str, Any]:
        """Of the last step, before its update."""
        return means(self.measured, self.weight)

    def measure(self, loss: MeasuredLoss, arrays: Any) -> dict[str, float]:
        """The loss on these rows, and what else it says, as means."""
        total, weight, sums = 0.0, 0.0, dict[str, float]()
        for piece in micro_batches(arrays, self.train.batch_size):
            found, own, figures = loss(self.model, [mx.array(array) for array in piece])
            mx.eval(found, own, figures)
            total, weight = total + float(found), weight + float(own)
            sums = {name: sums.get(name, 0.0) + float(value) for name, value in figures.items()}
        return {"loss": total / weight, **means(sums, weight)}

    @property
    def tokens_per_second(self) -> float:
        """Of responses. The loop counts rows."""
        mask: np.ndarray = self.arrays[2]
        return self.progress.tokens_per_second * float(mask.sum()) / len(mask)


def means(sums: dict[str, float], weight: float) -> dict[str, float]:
    """Of figures that are sums over rows; of KTO's rewards, over the rows of their own label."""
    sums = dict(sums)
    desirable = sums.pop("desirable", None)
    weights = {} if desirable is None else {"desirable_reward": desirable, "undesirable_reward": weight - desirable}
    return {name: value / max(weights.get(name, weight), 1.0) for name, value in sums.items()}
