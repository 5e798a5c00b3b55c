"""The optimiser's update, in hardly more memory than weights, state and gradients take anyway.

An update that is one graph has all new weights and moments beside the old ones: MLX hands out memory for results well
before it computes them, and takes back that of the inputs afterwards. So it goes stack by stack, arrays of one shape,
and each is done before the next begins. Of the old arrays nothing is left by then, if Python lets go of them: the new
ones take their place in the model and in the optimiser's state before anything is computed, gradients are given away
one by one, and no variable holds on to any of them. (MLX would even write results over such inputs, "donation", but
not where one fused kernel has several results, as that of AdamW has.)
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from ..models.parameters import named_arrays
from .stacks import stacks

Slot = tuple[Any, Any]
"""What holds something, and its key or index there."""


class Update:
    """`update(gradients, factor, learning_rate)` moves the model by factor x gradients, as the optimiser does.

    The optimiser may be any of MLX's, or a MultiOptimizer; its state must have been initialised. Each stack is one
    compiled function, traced once for each combination of shapes.
    """

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer):
        self.model, self.optimizer = model, optimizer
        self._functions = [mx.compile(_moving(leaf)) for leaf in leaves(optimizer)]

    def __call__(self, gradients: dict[str, mx.array], factor: float, learning_rate: float) -> None:
        """gradients: by the name of their parameter; they are taken out of the dictionary, which is empty then."""
        self.optimizer.learning_rate = mx.array(learning_rate)
        for leaf, move, names in zip(leaves(self.optimizer), self._functions, self._shares(gradients), strict=True):
            before = {key: value for key, value in leaf.state.items() if isinstance(value, mx.array)}
            after = before
            for some in stacks({name: gradients[name] for name in names}):
                own = [gradients.pop(name) for name in some]
                places = [slot(self.model, name) for name in some]
                states = [slot(leaf.state, name) for name in some]
                moved, kept, after = move(own, _taken(places), _taken(states), before, mx.array(factor))
                del own
                for (holder, key), new in zip([*places, *states], [*moved, *kept], strict=True):
                    holder[key] = new
                mx.eval(moved, kept)
            leaf.state.update(after)
            mx.eval(after)

    def _shares(self, gradients: dict[str, mx.array]) -> list[list[str]]:
        """The names that each leaf of the optimiser moves."""
        if not isinstance(self.optimizer, optim.MultiOptimizer):
            return [list(gradients)]
        shares: list[list[str]] = [[] for _ in self.optimizer.optimizers]
        for name, gradient in gradients.items():
            first = next(i for i, suits in enumerate(self.optimizer.filters) if suits(name, gradient))
            shares[first].append(name)
        return shares


def leaves(optimizer: optim.Optimizer) -> list[optim.Optimizer]:
    """The optimisers that a MultiOptimizer hands its parameters to; any other one is its own."""
    return optimizer.optimizers if isinstance(optimizer, optim.MultiOptimizer) else [optimizer]


def slot(tree: Any, name: str) -> Slot:
    """Where the thing of that name is in a tree of dictionaries and lists."""
    *path, last = name.split(".")
    for key in path:
        tree = tree[_index(tree, key)]
    return tree, _index(tree, last)


def _index(tree: Any, key: str) -> Any:
    return int(key) if isinstance(tree, list | tuple) else key


def _taken(slots: list[Slot]) -> list[Any]:
    return [holder[key] for holder, key in slots]


def _moving(leaf: optim.Optimizer) -> Any:
    """The leaf's update as a pure function of arrays, those of one stack."""

    def move(gradients: list, parameters: list, states: list, common: dict, factor: mx.array) -> tuple:
        names = [f"{i}" for i in range(len(gradients))]
        whole = leaf.state
        leaf.state = {**common, **{name: dict(state) for name, state in zip(names, states, strict=True)}}
        try:
            scaled = {name: g * factor for name, g in zip(names, gradients, strict=True)}
            moved = leaf.apply_gradients(scaled, dict(zip(names, parameters, strict=True)))
            kept = [leaf.state.pop(name) for name in names]
            return [moved[name] for name in names], kept, leaf.state
        finally:
            leaf.state = whole

    return move


def global_norm(gradients: dict) -> mx.array:
    """The Euclidean norm of all arrays of the tree together, in float32.

    One after the other: the squares of an array are gone before those of the next are made.
    """
    total = mx.array(0.0)
    for _, gradient in named_arrays(gradients):
        [gradient] = mx.depends([gradient], [total])
        total = total + mx.square(gradient.astype(mx.float32)).sum()
    return mx.sqrt(total)


def clip_factor(norm: float, limit: float | None) -> float:
    """What brings gradients of that norm down to `limit` where they exceed it (Pascanu et al. 2013)."""
    return 1.0 if limit is None else min(limit / (norm + 1e-6), 1.0)
