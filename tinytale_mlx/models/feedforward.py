"""The position-wise feed-forward network: widen, bend, narrow.

Gated (SwiGLU: Shazeer 2020) or plain, with GELU (Hendrycks & Gimpel 2016), SiLU, ReLU or ReLU² (So et al. 2021).
Each is `narrow(*widen(x))`: in training the block keeps what is between, and computes the activation again.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from ..recipe import ModelConfig
from .elementary import gelu_tanh, silu
from .wide import Linear


def relu2(x: mx.array) -> mx.array:
    return mx.square(nn.relu(x))


ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": nn.gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "relu": nn.relu,
    "relu2": relu2,
}


class FeedForward(nn.Module):
    """down(activation(up(x))): [B, T, hidden] to [B, T, hidden]."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self._activation = ACTIVATIONS[config.activation]

    def __call__(self, x: mx.array) -> mx.array:
        return self.narrow(*self.widen(x))

    @property
    def widening(self) -> list[nn.Module]:
        """What `widen` uses."""
        return [self.up_proj]

    def widen(self, x: mx.array) -> tuple[mx.array, ...]:
        return (self.up_proj(x),)

    def narrow(self, up: mx.array) -> mx.array:
        return self.down_proj(self._activation(up))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)): [B, T, hidden] to [B, T, hidden]."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def __call__(self, x: mx.array) -> mx.array:
        return self.narrow(*self.widen(x))

    @property
    def widening(self) -> list[nn.Module]:
        """What `widen` uses."""
        return [self.gate_proj, self.up_proj]

    def widen(self, x: mx.array) -> tuple[mx.array, ...]:
        return self.gate_proj(x), self.up_proj(x)

    def narrow(self, gate: mx.array, up: mx.array) -> mx.array:
        return self.down_proj(silu(gate) * up)


def make_feedforward(config: ModelConfig) -> FeedForward | SwiGLU:
    return SwiGLU(config) if config.activation == "swiglu" else FeedForward(config)
