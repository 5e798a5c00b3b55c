"""Mixed precision: compute in 16 bits, remember in 32 (Micikevicius et al. 2018).

The model's own weights stay float32 and are cast on the way into the forward pass; the cast's derivative brings the
gradients back in float32. What adds up many numbers (norms, softmax, losses, the gradients of embeddings and biases)
does so in float32, see `models/wide.py`.

bfloat16 has float32's range and needs nothing else. float16 does not: below 6e-8 a gradient is nothing, beyond 65,504
it is infinite. So the loss is multiplied by a scale first, as large as the gradients bear, and they are divided by it.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from ..models.parameters import named_arrays
from ..recipe.training import Precision, TrainRecipe

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
TOKENS = 2**12
"""A scale is meant for the mean loss, and a step adds up the losses of about so many tokens; how many exactly does not
matter, since the scale finds its own way."""
LEAST, MOST = 1.0, 2.0**32
"""Of a loss scale. Gradients that overflow at the least one are no matter of the scale."""


def cast(tree: Any, precision: Precision) -> Any:
    """The tree with its floating-point arrays in that precision."""
    dtype = DTYPES[precision]
    return tree_map(lambda x: x.astype(dtype) if mx.issubdtype(x.dtype, mx.floating) else x, tree)


def prepare(model: nn.Module, precision: Precision) -> None:
    """Before training: what is trained to float32, and what is frozen to that precision, once and for all.

    In float32 what is frozen stays as it is: weights of 16 bits gain nothing by being written in 32.
    """
    trained = model.trainable_parameters()
    model.update(cast(trained, "float32"))
    if precision != "float32":
        names = {name for name, _ in named_arrays(trained)}
        frozen = {name: array for name, array in named_arrays(model.parameters()) if name not in names}
        model.load_weights(list(cast(frozen, precision).items()), strict=False)


class LossScale:
    """What the mean loss is multiplied by: halved where gradients overflow, doubled after `window` steps without it."""

    def __init__(self, value: float = 1.0, window: int | None = None):
        self.value, self.window = value, window
        self.good_steps = 0

    @classmethod
    def of(cls, train: TrainRecipe) -> "LossScale":
        """The recipe's; 1, and for ever, where the precision needs none."""
        if train.precision != "float16":
            return cls()
        return cls(min(max(train.loss_scale, LEAST), MOST), train.loss_scale_window)

    @property
    def factor(self) -> float:
        """What a sum of losses is multiplied by."""
        return self.value if self.window is None else self.value / TOKENS

    def update(self, finite: bool) -> None:
        """After each step: whether its gradients were. A scale without a window stays as it is."""
        if self.window is None:
            return
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, LEAST)
        elif self.good_steps == self.window:
            self.value, self.good_steps = min(self.value * 2, MOST), 0

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint has to remember of it."""
        return {"value": self.value, "good_steps": self.good_steps}

    def restore(self, content: dict[str, Any] | None) -> None:
        """Go on from what `to_json` gave; from a checkpoint without a scale, stay as it is."""
        if content is not None:
            self.value, self.good_steps = float(content["value"]), int(content["good_steps"])
