"""Adapters for good, and adapters together: written into the weights of the base, or added up.

Both are exact in full precision. A base that is quantized is unpacked for it, and either stays so or is quantized
again; that rounds, and often by more than the adapter had changed, so it is measured and said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..errors import UserError
from .adapter_value import Adapter
from .adapters import Tuned, train_only
from .lora import LoRA
from .quantize import dense_layer
from .quantized_matmul import dequantized


@dataclass(frozen=True)
class Fused:
    """How far the weights of the fused layers moved, as shares of their norm (Frobenius)."""

    layers: int
    changed: float
    """By the adapter."""
    rounded: float
    """By quantizing again, or by 16 bits: the error that fusing makes. In full precision about 1e-7."""

    def __str__(self) -> str:
        said = f"{self.layers} layers fused: the adapter changed them by {self.changed:.2%}"
        return said + f", and rounding them again by {self.rounded:.2%}"


def fuse(tuned: Tuned, dequantize: bool = False) -> tuple[nn.Module, Fused]:
    """The base with the adapter written into its weights. Use the result, and `tuned` no more.

    `dequantize` leaves the layers that had an adapter in float32 instead of quantizing them again.

    Raises UserError for a learned prompt or prefix, which is no part of any matrix.
    """
    if tuned.adapter().method in ("prompt", "prefix"):
        raise UserError("a learned prompt is not part of any matrix and can't be fused; keep it beside the model")
    sums = [0.0, 0.0, 0.0]
    fused = []
    for path, module in tuned.base.named_modules():
        if isinstance(module, LoRA):
            layer, squares = _fused(module, dequantize)
            fused.append((path, layer))
            sums = [total + float(x) for total, x in zip(sums, squares, strict=True)]
    tuned.base.update_modules(tree_unflatten(fused))
    train_only(tuned.base, tuned.trainable_before)
    whole, changed, rounded = sums
    return tuned.base, Fused(len(fused), (changed / max(whole, 1e-30)) ** 0.5, (rounded / max(whole, 1e-30)) ** 0.5)


def _fused(module: LoRA, dequantize: bool) -> tuple[nn.Module, list[mx.array]]:
    """The new layer, and the squared norms of its exact weight, of the change, and of what rounding did."""
    base: Any = module.base
    before = dequantized(base)
    exact = module.fused_weight(before)
    layer: Any = base
    if base.get("scales") is None:
        layer.weight = exact.astype(base.weight.dtype)
    else:
        layer = dense_layer(base, exact)
        if not dequantize:
            layer = layer.to_quantized(group_size=base.group_size, bits=base.bits, mode=base.mode)
            _match_scales(layer, base)
    squares = [mx.square(x).sum() for x in (exact, exact - before, dequantized(layer) - exact)]
    mx.eval(layer.parameters(), squares)
    return layer, squares


def _match_scales(layer: Any, base: Any) -> None:
    """Scales and offsets in the dtype that they had."""
    for name in ("scales", "biases"):
        if base.get(name) is not None:
            layer[name] = layer[name].astype(base[name].dtype)


def combine(parts: Sequence[tuple[Adapter, float]]) -> Adapter:
    """One adapter that adds up the updates of several LoRA adapters, each times its weight; exactly.

    Its rank is the sum of the ranks: A's side by side, B's one below the other.

    Raises UserError for adapters of other methods or with weights trained whole, and for different bases.
    """
    if not parts:
        raise UserError("there is nothing to combine: give at least one adapter")
    for adapter, _ in parts:
        if adapter.method != "lora" or adapter.whole:
            raise UserError("only LoRA adapters without weights trained whole add up; fuse the others one by one")
    bases = {adapter.base for adapter, _ in parts} - {None}
    if len(bases) > 1:
        raise UserError("the adapters were trained on different models, so they don't add up")
    weights: dict[str, mx.array] = {}
    for path in dict.fromkeys(path for adapter, _ in parts for path in adapter.paths):
        having = [(adapter, share) for adapter, share in parts if path in adapter.paths]
        ups = [share * adapter.scale * adapter.weights[f"{path}.lora_b"] for adapter, share in having]
        weights[f"{path}.lora_a"] = mx.concatenate([a.weights[f"{path}.lora_a"] for a, _ in having], axis=1)
        weights[f"{path}.lora_b"] = mx.concatenate(ups)
    return Adapter("lora", equal_ranks(weights), base=next(iter(bases), None))


def equal_ranks(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Updates of smaller rank filled up with zeros: mlx-lm's format has one rank for all layers."""
    rank = max(a.shape[1] for name, a in weights.items() if name.endswith(".lora_a"))
    return {name: _filled(name, array, rank) for name, array in weights.items()}


def _filled(name: str, array: mx.array, rank: int) -> mx.array:
    if name.endswith(".lora_a"):
        return mx.pad(array, [(0, 0), (0, rank - array.shape[1])])
    return mx.pad(array, [(0, rank - len(array)), (0, 0)]) if name.endswith(".lora_b") else array
