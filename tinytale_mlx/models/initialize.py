"""Where the weights start. One function, drawn from one key, the same on every backend.

Matrices come from a normal distribution; the projections that write into the residual stream are drawn smaller, since
2 x layers of them add up (Radford et al. 2019), or start at zero. Biases are zero, norms one.
"""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..recipe import ModelConfig
from .parameters import named_arrays

RESIDUAL = ("o_proj", "down_proj")


def initialize(model: nn.Module, config: ModelConfig, key: mx.array) -> None:
    """Replace every matrix and bias of `model`; the weights of norms keep the ones that they were made with."""
    parameters = named_arrays(model.parameters())
    matrices = [(path, array) for path, array in parameters if array.ndim == 2]
    # `nn.Linear` draws its bias, and from ambient randomness.
    biases = [(path, mx.zeros_like(array)) for path, array in parameters if path.endswith(".bias")]
    keys = mx.random.split(key, len(matrices))
    drawn = [
        (path, mx.random.normal(array.shape, key=k) * standard_deviation(path, array.shape, config))
        for (path, array), k in zip(matrices, keys, strict=True)
    ]
    model.update(tree_unflatten(drawn + biases))


def standard_deviation(path: str, shape: tuple[int, ...], config: ModelConfig) -> float:
    if path.split(".")[-2] in RESIDUAL and config.residual_init != "same":
        return 0.0 if config.residual_init == "zero" else config.init_std / (2 * config.layers) ** 0.5
    # Both a Linear [out, in] and an Embedding [rows, width] have the fan-in last.
    return config.init_std if config.init == "normal" else shape[-1] ** -0.5
