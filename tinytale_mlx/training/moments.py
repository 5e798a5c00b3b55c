"""Adam's moments in fewer bits: bfloat16, or 8 bits and a scale for each block (Dettmers et al. 2021).

A block of 256 numbers is divided by its largest. Of what is left, the 8 bits hold the square root (of the first moment)
or the fourth root (of the second, which is a square itself), so that small numbers are kept about as well as large
ones; a fixed table of values does the same for Dettmers et al. The second moment is never rounded to zero, since it
is divided by.

In one step a moment changes by less than 8 bits, or bfloat16, can tell: rounded to the nearest value it would stay
where it is for ever. So it is rounded up or down, in proportion to how near it is to each. In place of dice there is a
sequence that fills the interval evenly (Weyl 1916), a function of place and step, so that runs are exactly repeatable.
"""

import math
from collections.abc import Callable
from typing import Literal

import mlx.core as mx

Form = Literal["bfloat16", "int8"]
Kept = dict[str, mx.array]
"""{"codes": bfloat16 [n, 256]}, or {"codes": int8 or uint8 [n, 256], "scales": float32 [n, 1]}."""

BLOCK = 256


def blocked(array: mx.array) -> mx.array:
    """Its numbers in order, as [n, 256]; zeros fill the last block."""
    flat = array.reshape(-1)
    return mx.pad(flat, (0, -flat.size % BLOCK)).reshape(-1, BLOCK)


def unblocked(blocks: mx.array, shape: tuple[int, ...]) -> mx.array:
    """What `blocked` was given, of that shape."""
    return blocks.reshape(-1)[: math.prod(shape)].reshape(shape)


def keep(blocks: mx.array, form: Form, signed: bool, step: mx.array, first: int = 0) -> Kept:
    """What to store of a moment after this step, from float32 [n, 256]; `first` is the number of the first block.

    The second moment is not signed: never below zero.
    """
    dither = _dither(blocks.shape, first, step)
    if form == "bfloat16":  # the upper half of a float32; what is added to the lower half may carry into it
        bits = blocks.view(mx.uint32) + (dither * 2**16).astype(mx.uint32)
        return {"codes": (bits & 0xFFFF0000).view(mx.float32).astype(mx.bfloat16)}
    scales = mx.abs(blocks).max(axis=1, keepdims=True)
    share = mx.abs(blocks) / mx.maximum(scales, 1e-30)
    if signed:
        codes = _rounded(share, mx.floor(127 * mx.sqrt(share)), _square, dither)
        codes = (mx.sign(blocks) * codes).astype(mx.int8)
    else:
        codes = _rounded(share, mx.floor(255 * mx.sqrt(mx.sqrt(share))), _fourth_power, dither)
        codes = mx.maximum(codes, 1).astype(mx.uint8)
    return {"codes": codes, "scales": scales}


def restore(kept: Kept) -> mx.array:
    """The moment again, float32 [n, 256], as nearly as it was kept."""
    values = kept["codes"].astype(mx.float32)
    match kept["codes"].dtype:
        case mx.int8:
            return kept["scales"] * mx.sign(values) * _square(values)
        case mx.uint8:
            return kept["scales"] * _fourth_power(values)
    return values


def _square(code: mx.array) -> mx.array:
    return mx.square(code / 127)


def _fourth_power(code: mx.array) -> mx.array:
    return mx.square(mx.square(code / 255))


def _rounded(value: mx.array, below: mx.array, meaning: Callable[[mx.array], mx.array], dither: mx.array) -> mx.array:
    """The code `below` or the next one, as often as makes their meaning the value on average."""
    low, high = meaning(below), meaning(below + 1)
    return below + mx.floor((value - low) / (high - low) + dither)


def _dither(shape: tuple[int, ...], first: int, step: mx.array) -> mx.array:
    """For each place [n, 256] a number in [0, 1), another one each step; evenly spread over steps, and over places."""
    block, place = mx.arange(first, first + shape[0], dtype=mx.uint32), mx.arange(shape[1], dtype=mx.uint32)
    turns = step.astype(mx.uint32) * 2654435769 + block[:, None] * 3242174889 + place * 2447445413  # modulo 2^32
    return (turns >> 16).astype(mx.float32) / 2**16
