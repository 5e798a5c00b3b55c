"""LayerNorm (Ba et al. 2016) and RMSNorm (Zhang & Sennrich 2019), both computed in float32 by MLX's fused kernels.

So are their derivatives: MLX's own would sum the gradient of the weight, over all tokens, in the dtype of x.
"""

import mlx.core as mx
import mlx.nn as nn

from ..recipe import ModelConfig
from .wide import derived_in_float32


class RMSNorm(nn.Module):
    """x / rms(x), times a learned weight where there is one. Leaves the mean alone, which costs nothing in quality."""

    def __init__(self, dims: int, eps: float, weight: bool = True):
        super().__init__()
        if weight:
            self.weight = mx.ones((dims,))
        self._norm = derived_in_float32(lambda x, weight=None: mx.fast.rms_norm(x, weight, eps))

    def __call__(self, x: mx.array) -> mx.array:
        return self._norm(x, *([self["weight"]] if "weight" in self else []))


class LayerNorm(nn.Module):
    """(x - mean) / standard deviation, times a weight, plus a bias, where there are any."""

    def __init__(self, dims: int, eps: float, weight: bool = True, bias: bool = True):
        super().__init__()
        if weight:
            self.weight = mx.ones((dims,))
            if bias:
                self.bias = mx.zeros((dims,))
        self._norm = derived_in_float32(lambda x, weight=None, bias=None: mx.fast.layer_norm(x, weight, bias, eps))

    def __call__(self, x: mx.array) -> mx.array:
        return self._norm(x, *(self[name] for name in ("weight", "bias") if name in self))


def make_norm(config: ModelConfig, dims: int) -> nn.Module:
    if config.norm == "rmsnorm":
        return RMSNorm(dims, config.norm_eps, config.norm_weight)
    return LayerNorm(dims, config.norm_eps, config.norm_weight, config.norm_bias)
