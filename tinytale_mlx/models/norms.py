"""LayerNorm (Ba et al. 2016) and RMSNorm (Zhang & Sennrich 2019), both computed in float32 by MLX's fused kernels."""

import mlx.core as mx
import mlx.nn as nn

from ..recipe import ModelConfig


class RMSNorm(nn.Module):
    """x / rms(x), times a learned weight where there is one. Leaves the mean alone, which costs nothing in quality."""

    def __init__(self, dims: int, eps: float, weight: bool = True):
        super().__init__()
        if weight:
            self.weight = mx.ones((dims,))
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, self.get("weight"), self._eps)


class LayerNorm(nn.Module):
    """(x - mean) / standard deviation, times a weight, plus a bias, where there are any."""

    def __init__(self, dims: int, eps: float, weight: bool = True, bias: bool = True):
        super().__init__()
        if weight:
            self.weight = mx.ones((dims,))
            if bias:
                self.bias = mx.zeros((dims,))
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.get("weight"), self.get("bias"), self._eps)


def make_norm(config: ModelConfig, dims: int) -> nn.Module:
    if config.norm == "rmsnorm":
        return RMSNorm(dims, config.norm_eps, config.norm_weight)
    return LayerNorm(dims, config.norm_eps, config.norm_weight, config.norm_bias)
