"""LoRA+ (Hayou et al. 2024): B, which starts at zero, learns many times faster than A.

An optimiser with several learning rates, one per group of arrays, that still listens to one schedule.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim


class RatedOptimizers(optim.MultiOptimizer):
    """MLX's MultiOptimizer whose members keep a fixed ratio between their rates: setting `learning_rate` scales all.

    A filter (path, array) for each member but the last says what it moves; the last moves the rest.
    """

    def __init__(self, optimizers: list, filters: list, ratios: list[float]):
        super().__init__(optimizers, filters)
        self.ratios = ratios
        self.learning_rate = optimizers[-1].learning_rate

    @property
    def learning_rate(self) -> mx.array:
        return self.optimizers[-1].learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        for optimizer, ratio in zip(self.optimizers, self.ratios, strict=True):
            optimizer.learning_rate = learning_rate * ratio


def is_lora_b(path: str, array: mx.array) -> bool:
    return path.endswith(".lora_b")


def lora_plus(make: Callable[[], optim.Optimizer], ratio: float) -> optim.Optimizer:
    """Two optimisers of the same making; the one for every `lora_b` at `ratio` times the rate."""
    return RatedOptimizers([make(), make()], [is_lora_b], [ratio, 1.0])
