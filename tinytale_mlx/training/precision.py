"""Mixed precision: compute in 16 bits, remember in 32 (Micikevicius et al. 2018).

The model's own weights stay float32 and are cast on the way into the forward pass; the cast's derivative brings the
gradients back in float32. bfloat16 has float32's range and needs nothing else. float16 does not: small gradients
vanish, so the loss is multiplied by a scale first, as large as the gradients bear.
"""

from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from ..recipe.training import Precision, TrainRecipe

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
LARGEST = 2.0**24


def cast(tree: Any, precision: Precision) -> Any:
    """The tree with its floating-point arrays in that precision."""
    dtype = DTYPES[precision]
    return tree_map(lambda x: x.astype(dtype) if mx.issubdtype(x.dtype, mx.floating) else x, tree)


class LossScale:
    """What the loss is multiplied by: halved where gradients overflow, doubled after `window` steps without that."""

    def __init__(self, value: float = 1.0, window: int | None = None):
        self.value, self.window = value, window
        self.good_steps = 0

    @classmethod
    def of(cls, train: TrainRecipe) -> "LossScale":
        return cls(train.loss_scale, train.loss_scale_window) if train.precision == "float16" else cls()

    def update(self, finite: bool) -> None:
        """After each step; a scale without a window stays as it is."""
        if self.window is None:
            return
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, 1.0)
        elif self.good_steps == self.window:
            self.value, self.good_steps = min(self.value * 2, LARGEST), 0
