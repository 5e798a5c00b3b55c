"""The product with a frozen quantized matrix, for training on top of one (QLoRA, Dettmers et al. 2023).

There are two ways to it. `mx.quantized_matmul` unpacks weights as it goes, which is right for the one row of a
decoding step. Unpacking the whole matrix first and then using the ordinary product costs a matrix in full precision
for a moment, and pays where that product is much faster: on an x86 CPU from 16 rows on, up to 17 times. Which way is
taken is decided by the number of rows, `DEQUANTIZE_FROM`, per backend. To measure it on a machine of your own:

    python -m tinytale_mlx.tuning

The unpacked matrix must not outlive its product. Left to itself it does: it depends on weights only, so MLX may unpack
many layers before it needs the first, and `mx.compile` sees that forward and backward pass unpack the same and keeps
it between them. `mx.depends` ties each unpacking to what it is multiplied with.
"""

import functools
import time
from typing import Any, NamedTuple, Self

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..models.elementary import with_vjp
from ..models.parameters import named_arrays
from .targets import modules

DEQUANTIZE_FROM: dict[str, int | None] = {"cpu": 16, "gpu": None}
"""From how many rows on the matrix is unpacked first; None for never. Not measured on a Mac yet."""


def quantized_matmul(x: mx.array, layer: Any) -> mx.array:
    """x W^T for x [..., in] and the frozen weights W [out, in] of a quantized layer; [..., out], in the dtype of x.

    Gradients flow to x alone.
    """
    arrays = [layer.weight, layer.scales, *([] if layer.get("biases") is None else [layer.biases])]
    form = (layer.group_size, layer.bits, layer.mode)
    if unpacks_first(x.size // x.shape[-1]):
        return _dense_product(*form)(x, *arrays)
    group_size, bits, mode = form
    return mx.quantized_matmul(x, *arrays, transpose=True, group_size=group_size, bits=bits, mode=mode)


def unpacks_first(rows: int) -> bool:
    least = DEQUANTIZE_FROM["cpu" if mx.default_device() == mx.Device(mx.cpu) else "gpu"]
    return least is not None and rows >= least


def dequantized(layer: Any, dtype: mx.Dtype = mx.float32) -> mx.array:
    """The matrix [out, in] of a quantized layer, or that of any other; computed in `dtype`."""
    if layer.get("scales") is None:
        return layer.weight.astype(dtype)
    rest = [] if layer.get("biases") is None else [layer.biases]
    return _unpack(dtype, layer.group_size, layer.bits, layer.mode, layer.weight, layer.scales, *rest)


def _unpack(dtype: mx.Dtype, group_size: int, bits: int, mode: str, *arrays: mx.array) -> mx.array:
    weight, scales, *biases = arrays
    if biases:  # in 16 bits, scale x weight + bias would be rounded to 16 bits
        scales, biases = scales.astype(dtype), [biases[0].astype(dtype)]
    return mx.dequantize(weight, scales, *biases, group_size=group_size, bits=bits, mode=mode, dtype=dtype)


@functools.cache
def _dense_product(group_size: int, bits: int, mode: str) -> Any:
    def unpacked_after(wait: mx.array, weight: mx.array, *rest: mx.array) -> mx.array:
        (weight,) = mx.depends([weight], [wait])
        return _unpack(wait.dtype, group_size, bits, mode, weight, *rest)

    @with_vjp
    def product(x: mx.array, *packed: mx.array) -> mx.array:
        return x @ unpacked_after(x, *packed).T

    @product.vjp
    def product_vjp(primals, cotangent, _):
        packed = primals[1:]
        return cotangent @ unpacked_after(cotangent, *packed), *[mx.zeros_like(array) for array in packed]

    return product


# ---------------------------------------------------------------------- layers
class QuantizedLinear(nn.QuantizedLinear):
    """MLX's layer, with the product above."""

    def __call__(self, x: mx.array) -> mx.array:
        y = quantized_matmul(x, self)
        return y + self.bias if "bias" in self else y

    @classmethod
    def like(cls, layer: nn.QuantizedLinear) -> Self:
        return _retyped(layer, cls)


class QuantizedEmbedding(nn.QuantizedEmbedding):
    """MLX's layer, with the product above where it makes logits, and rows in the dtype of the model.

    From the floating-point formats MLX makes rows in bfloat16, and with them a model that computes in bfloat16.
    """

    dtype: mx.Dtype = mx.bfloat16

    def __call__(self, x: mx.array) -> mx.array:
        rows = [self[name][x] for name in ("weight", "scales", "biases") if self.get(name) is not None]
        return _unpack(self.dtype, self.group_size, self.bits, self.mode, *rows)

    def as_linear(self, x: mx.array) -> mx.array:
        """The largest matrix, and needed for every chunk of a loss, there and back, by every stream: `mx.compile` is
        to see that it is the same, so that there is one of it."""
        if not unpacks_first(x.size // x.shape[-1]):
            return quantized_matmul(x, self)
        with mx.stream(mx.default_device()):
            matrix = mx.stop_gradient(dequantized(self, x.dtype))
        return x @ matrix.T

    @classmethod
    def like(cls, layer: nn.QuantizedEmbedding) -> Self:
        return _retyped(layer, cls)


def use_calibrated_product(model: nn.Module) -> None:
    """Give every quantized layer of `model` the product above; the arrays stay the same."""
    kinds = {nn.QuantizedLinear: QuantizedLinear, nn.QuantizedEmbedding: QuantizedEmbedding}
    dtypes = [array.dtype for _, array in named_arrays(model.parameters()) if mx.issubdtype(array.dtype, mx.floating)]
    found = [(path, kinds[type(m)].like(m)) for path, m in modules(model).items() if type(m) in kinds]
    for _, layer in found:
        if isinstance(layer, QuantizedEmbedding) and dtypes:
            layer.dtype = dtypes[0]
    model.update_modules(tree_unflatten(found))


def _retyped(layer: nn.Module, kind: Any) -> Any:
    new = kind.__new__(kind)
    nn.Module.__init__(new)
    vars(new).update(vars(layer))
    dict.update(new, layer)
    return new


# ---------------------------------------------------------------------- which way is faster here
class Timing(NamedTuple):
    rows: int
    quantized: float
    """Seconds of `mx.quantized_matmul`, forward and backward."""
    dequantized: float
    """Seconds of unpacking and multiplying."""


def calibrate(
    inputs: int = 1024,
    outputs: int = 1024,
    bits: int = 4,
    group_size: int = 64,
    mode: str = "affine",
    dtype: mx.Dtype = mx.float32,
    repeats: int = 5,
) -> list[Timing]:
    """Measure both ways with 1, 4, 16 … 1024 rows: the best of `repeats`, taken in turns."""
    packed = mx.quantize(
        mx.random.normal((outputs, inputs), key=mx.random.key(0)).astype(dtype), group_size, bits, mode=mode
    )
    form: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": mode}
    found = []
    for rows in (1, 4, 16, 64, 256, 1024):
        x = mx.random.normal((rows, inputs), key=mx.random.key(rows)).astype(dtype)
        mx.eval(x, *packed)
        ways = [
            lambda x: mx.quantized_matmul(x, *packed, transpose=True, **form),
            lambda x: _dense_product(group_size, bits, mode)(x, *packed),
        ]
        both = [mx.value_and_grad(lambda x, way=way: way(x).sum()) for way in ways]
        best = [min(times) for times in zip(*[[_seconds(f, x) for f in both] for _ in range(repeats)], strict=True)]
        found.append(Timing(rows, *best))
    return found


def _seconds(function: Any, x: mx.array) -> float:
    started = time.perf_counter()
    mx.eval(function(x))
    return time.perf_counter() - started


def threshold(timings: list[Timing]) -> int | None:
    """The number of rows from which on unpacking first was faster every time; None where it never was at the end."""
    least = None
    for timing in sorted(timings, reverse=True):
        if timing.dequantized >= timing.quantized:
            break
        least = timing.rows
    return least


def report(timings: list[Timing]) -> str:
    """The table, and the line of `DEQUANTIZE_FROM` that follows from it."""
    lines = ["   rows  quantized ms  dequantized ms  ratio"]
    for rows, quantized, dense in timings:
        lines.append(f"{rows:7d}  {quantized * 1e3:12.2f}  {dense * 1e3:14.2f}  {quantized / dense:5.2f}")
    device = "cpu" if mx.default_device() == mx.Device(mx.cpu) else "gpu"
    return "\n".join([*lines, f'DEQUANTIZE_FROM["{device}"] = {threshold(timings)}'])
