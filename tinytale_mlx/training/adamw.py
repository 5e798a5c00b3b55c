"""AdamW (Kingma & Ba 2015 with the decoupled decay of Loshchilov & Hutter 2019), also with its moments in few bits."""

from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_map, tree_unflatten

from ..models.parameters import named_arrays
from . import moments
from .decoupled import decayed, once

PIECE = 2**12
"""Blocks unpacked at a time, 4 MB of each moment: all at once, they would take more memory than few bits save."""


class AdamW(optim.Adam):
    """Adam with bias correction, which MLX leaves out by default and every published learning rate assumes.

    Moments and arithmetic are in float32, whatever the parameters are kept in.
    """

    def __init__(self, learning_rate: float, betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(learning_rate=learning_rate, betas=list(betas), eps=eps, bias_correction=True)
        self.weight_decay = weight_decay

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["m"], state["v"] = mx.zeros(parameter.shape), mx.zeros(parameter.shape)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate, (beta1, beta2), square = self.learning_rate, self.betas, mx.square(gradient.astype(mx.float32))
        state["m"] = beta1 * state["m"] + (1 - beta1) * gradient.astype(mx.float32)
        state["v"] = beta2 * state["v"] + (1 - beta2) * square
        step, root = once([rate / (1 - beta1**self.step), mx.rsqrt(1 - beta2**self.step)], gradient)
        weights = decayed(parameter.astype(mx.float32), rate, self.weight_decay)
        return (weights - step * state["m"] / (mx.sqrt(state["v"]) * root + self.eps)).astype(parameter.dtype)


class LowBitAdamW(AdamW):
    """AdamW that keeps the moments of matrices as `moments.Kept`: in bfloat16, or 8 bits."""

    def __init__(
        self,
        learning_rate: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        form: moments.Form,
    ):
        super().__init__(learning_rate, betas, eps, weight_decay)
        self.form: moments.Form = form
        self._done: list[mx.array] = []

    def init_single(self, parameter: mx.array, state: dict) -> None:
        super().init_single(parameter, state)
        if parameter.ndim >= 2:
            state |= {name: self._keep(name, moments.blocked(state[name]), 0) for name in "mv"}

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        self._done = []
        moved = super().apply_gradients(gradients, parameters)
        self._done = []
        return moved

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        if parameter.ndim < 2:
            return super().apply_single(gradient, parameter, state)
        whole = {"gradient": moments.blocked(gradient), "weights": moments.blocked(parameter), **state}
        firsts = range(0, len(whole["weights"]), PIECE)
        pieces = [self._apply_piece(tree_map(lambda a, f=first: a[f : f + PIECE], whole), first) for first in firsts]
        joined = tree_map(lambda *parts: mx.concatenate(list(parts)), *pieces)
        state |= {name: joined[name] for name in "mv"}
        return moments.unblocked(joined["weights"], parameter.shape)

    def _apply_piece(self, piece: dict[str, Any], first: int) -> dict[str, Any]:
        """The new weights and moments of the blocks from number `first` on, when the piece before is done."""
        names, arrays = zip(*named_arrays(piece), strict=True)
        piece = tree_unflatten(list(zip(names, mx.depends(list(arrays), self._done), strict=True)))
        current = {name: moments.restore(piece[name]) for name in "mv"}
        moved = {"weights": super().apply_single(piece["gradient"], piece["weights"], current)}
        moved |= {name: self._keep(name, current[name], first) for name in "mv"}
        self._done = [array for _, array in named_arrays(moved)]
        return moved

    def _keep(self, name: str, blocks: mx.array, first: int) -> moments.Kept:
        return moments.keep(blocks, self.form, name == "m", self.step, first)
