"""Arrays of one shape together, as many as are worth one piece of work."""

import math
from collections.abc import Iterator

import mlx.core as mx

STACK = 2**20
"""Numbers in a piece of work. Small arrays are quicker together; a large one is work enough by itself, and together
their intermediate results would take several times their memory."""


def stacks(arrays: dict[str, mx.array], most: int | None = None) -> Iterator[list[str]]:
    """The names of all arrays, shape by shape, up to `most` numbers at a time (STACK), and at least one array."""
    for shape in dict.fromkeys(array.shape for array in arrays.values()):
        names = [name for name, array in arrays.items() if array.shape == shape]
        count = max((most or STACK) // max(math.prod(shape), 1), 1)
        for start in range(0, len(names), count):
            yield names[start : start + count]
