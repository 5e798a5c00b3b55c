"""Gradient checkpointing: activations that are not kept, but computed again on the way back (Chen et al. 2016).

The way back through a block needs what the block computed on its way there: scores, activations, several copies of
each hidden state. Keeping only the block's input and computing the rest again costs one more forward pass, about a
third of a training step, and leaves the activations of one block in memory instead of all blocks'.

What costs no matrix product with weights is never kept (`Block`): norms and activations, and attention's scores
[B, heads, T, T], which weigh most and cost least (Korthikanti et al. 2022; FlashAttention, Dao et al. 2022, and Liger
Kernel, Hsu et al. 2024, never keep them either). That is no switch, for it takes about as long as to read them again.

`mx.checkpoint` does the same, with two traps. It differentiates by every argument, and neither token ids nor random
keys have a derivative; and what draws from ambient random numbers draws others the second time. Here everything but
parameters and input is closed over. And it leaves to MLX when the gradients of a block's parameters are computed,
which may be as late as the very end; until then, all that they are computed from stays in memory. Here the way back
goes on from a block when its parameters have theirs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from .elementary import with_vjp
from .parameters import named_arrays


def recompute(modules: Sequence[nn.Module], forward: Callable[..., Any], *inputs: mx.array) -> Any:
    """`forward(*inputs)`, an array or several, computed a second time on the way back.

    `forward` may use the modules' parameters, which are differentiated as far as they are trainable, and close over
    keys, ids and masks. Of other arrays that it uses it must not be differentiated: their gradient would be lost.
    """
    parameters = [module.trainable_parameters() for module in modules]
    names = [name for name, _ in named_arrays(parameters)]

    def pure(*arrays: mx.array) -> Any:
        place(tree_unflatten(list(zip(names, arrays[len(inputs) :], strict=True))))
        y = forward(*arrays[: len(inputs)])
        place(parameters)
        return y

    def place(trees: Any) -> None:
        for module, tree in zip(modules, trees, strict=False):
            module.update(tree)

    run = with_vjp(pure)

    @run.vjp
    def _back(primals: Any, cotangents: Any, _: Any) -> tuple[mx.array, ...]:
        arrays, cotangents = _several(primals), _several(cotangents)
        waiting = mx.depends(arrays, cotangents)  # not before it is needed
        gradients = mx.vjp(pure, waiting, cotangents)[1]
        to_inputs, to_parameters = gradients[: len(inputs)], gradients[len(inputs) :]
        if to_parameters:
            to_inputs = mx.depends(to_inputs, to_parameters)
        return *to_inputs, *to_parameters

    return run(*inputs, *(array for _, array in named_arrays(parameters)))


def _several(arrays: Any) -> list[mx.array]:
    return list(arrays) if isinstance(arrays, tuple | list) else [arrays]
