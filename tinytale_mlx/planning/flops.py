"""Floating-point operations per token. A multiplication and the addition after it are two.

A matrix of N numbers costs 2 N per token forward, and 4 N backward: once for the gradient of its input, once for its
own. That is the 6 N of Kaplan et al. 2020 (section 2.1) and Hoffmann et al. 2022 (appendix F). Attention multiplies
queries with keys and weights with values on top, 12 x layers x heads x size x length (PaLM, Chowdhery et al. 2022,
appendix B), here for all pairs: the mask hides half of the scores, but they are computed nevertheless. A shared
block costs as often as it is used. Norms, activations and softmax are left out, as is customary.

Gradient checkpointing computes forward passes again. That is time, but no progress: it is counted apart, so that a
model FLOPs utilisation (MFU) stays comparable (Korthikanti et al. 2022, section 4, call the other one hardware's).
"""

import math
from dataclasses import dataclass

from ..recipe import ModelConfig, TrainRecipe
from .parameters import block_shapes, parameter_shapes
from .state import uses_muon


@dataclass(frozen=True)
class Flops:
    """Per token."""

    forward: int
    training: int
    """Forward and backward: three times the forward pass."""
    recomputed: int
    """By gradient checkpointing, on top of `training`. A loss in chunks computes nothing twice."""


def flops_per_token(config: ModelConfig, train: TrainRecipe) -> Flops:
    """For a token in a row of `config.context` tokens. Needs config.vocab_size."""
    attention, feedforward, head = _attention(config), _feedforward(config), _head(config)
    forward = config.layers * (attention + feedforward) + head
    recomputed = 0
    checkpointed = len(checkpointed_layers(config, train))
    if train.gradient_checkpointing == "block":
        recomputed += checkpointed * (attention + feedforward)
    elif train.gradient_checkpointing == "attention":
        recomputed += checkpointed * attention
    return Flops(forward, 3 * forward, recomputed)


def update_flops(config: ModelConfig, train: TrainRecipe) -> int:
    """Of one optimiser step: Muon's five Newton-Schulz iterations. Other optimisers cost next to nothing.

    For a matrix [m, n] with m <= n, an iteration takes the products x x^T, its square, and that times x.
    """
    if train.optimizer != "muon":
        return 0
    total = 0
    for name, shape in parameter_shapes(config):
        if uses_muon(name):
            m, n = sorted(shape)
            total += 5 * (2 * m * m * n + 2 * m**3 + 2 * m * m * n)
    return total


def checkpointed_layers(config: ModelConfig, train: TrainRecipe) -> list[int]:
    """Numbers of the layers that are checkpointed: every k-th."""
    if train.gradient_checkpointing == "none":
        return []
    return list(range(0, config.layers, train.gradient_checkpointing_every))


def _attention(config: ModelConfig) -> int:
    """Projections, and the two products with all pairs of tokens."""
    pairs = 2 * 2 * config.heads * config.size_per_head * config.context
    return 2 * _matrices(config, "self_attn.") + pairs


def _feedforward(config: ModelConfig) -> int:
    return 2 * _matrices(config, "mlp.")


def _head(config: ModelConfig) -> int:
    return 2 * (config.vocab_size or 0) * config.hidden_size


def _matrices(config: ModelConfig, part: str) -> int:
    names = ((name, shape) for name, shape in block_shapes(config) if name.startswith(part))
    return sum(math.prod(shape) for name, shape in names if name.endswith("proj.weight"))
