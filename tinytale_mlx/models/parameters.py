"""The arrays of a model, an optimiser or any other tree, by name."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

QUANTIZED = (nn.QuantizedLinear, nn.QuantizedEmbedding)
"""Layers whose weights are packed into few bits."""


def named_arrays(tree: Any) -> list[tuple[str, mx.array]]:
    """(path, array) for each array of the tree, in the order in which it was made."""
    flat: Any = tree_flatten(tree)
    return flat


def count_parameters(model: nn.Module) -> int:
    """Every array counted once. The model need not be evaluated: shapes are enough."""
    return sum(array.size for _, array in named_arrays(model.parameters()))
