"""Weights in few bits: every matrix of a model, all alike or each as it bears it.

A row is cut into groups, and a group is kept as small integers with a scale and an offset ("affine"), or in one of the
4- and 8-bit floating-point formats (Rouhani et al. 2023: mxfp4, mxfp8; nvfp4). Not every matrix bears it alike. With
`sensitivities` one measures, on texts, how far the model's predictions move when that matrix alone is quantized; with
`mixed` the matrices that matter most per byte get the more bits (in the manner of Dong et al. 2020, HAWQ-V2, whose
estimate from the Hessian is replaced by measuring).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..errors import UserError
from ..models.parameters import QUANTIZED, named_arrays
from ..models.wide import Embedding, Linear
from ..recipe.tuning import QuantizeRecipe
from .lora import matrix_shape
from .quantized_matmul import dequantized, use_calibrated_product
from .targets import EMBEDDING, LINEAR, modules

Plan = dict[str, QuantizeRecipe]
"""Path of a layer to its format; a layer that is not in it stays as it is."""


def quantizable(model: nn.Module, group_size: int) -> dict[str, nn.Module]:
    """The Linear and Embedding layers whose rows are whole groups, by path."""
    return {
        path: layer
        for path, layer in modules(model).items()
        if isinstance(layer, (*LINEAR, *EMBEDDING))
        and not isinstance(layer, QUANTIZED)
        and matrix_shape(layer)[1] % group_size == 0
    }


def uniform(model: nn.Module, settings: QuantizeRecipe) -> Plan:
    """The same format for every layer that can have it. Raises UserError where none can."""
    found = quantizable(model, settings.weights_per_group)
    if not found:
        raise UserError(
            f"no matrix of the model can be quantized in groups of {settings.weights_per_group}: no width is a "
            "multiple of it, or they are quantized already"
        )
    return dict.fromkeys(found, settings)


def quantize(model: nn.Module, plan: Plan) -> None:
    """Quantize these layers of `model` in place; they are frozen from then on, and use the calibrated product."""
    layers = modules(model)
    for path, settings in plan.items():  # one after the other: only one is there twice at a time
        model.update_modules(tree_unflatten([(path, packed(layers.pop(path), settings))]))
    use_calibrated_product(model)


def packed(layer: Any, settings: QuantizeRecipe) -> nn.Module:
    """The quantized layer; an own one, evaluated."""
    new = layer.to_quantized(group_size=settings.weights_per_group, bits=settings.num_bits, mode=settings.mode)
    mx.eval(new.parameters())
    return new


def dequantize(model: nn.Module, dtype: mx.Dtype = mx.float32) -> None:
    """Turn every quantized layer of `model` into an ordinary one, trainable, in place."""
    for path, layer in modules(model).items():
        if isinstance(layer, QUANTIZED):
            new = dense_layer(layer, dequantized(layer, dtype))
            mx.eval(new.parameters())
            model.update_modules(tree_unflatten([(path, new)]))


def dense_layer(layer: Any, weight: mx.array) -> nn.Module:
    """An ordinary layer of this weight in the place of `layer`, with its bias."""
    rows, width = weight.shape
    if isinstance(layer, EMBEDDING):
        new = Embedding(rows, width)
    else:
        new = Linear(width, rows, bias="bias" in layer)
        if "bias" in layer:
            new.bias = layer.bias
    new.weight = weight
    return new


def bits_per_weight(model: nn.Module) -> float:
    """Of all that the model holds, scales and unquantized arrays included."""
    arrays = named_arrays(model.parameters())
    hidden = {
        id(m): matrix_shape(m)[0] * matrix_shape(m)[1] for m in modules(model).values() if isinstance(m, QUANTIZED)
    }
    extra = sum(m[name].size for m in modules(model).values() if isinstance(m, QUANTIZED)
                for name in ("weight", "scales", "biases") if m.get(name) is not None)  # fmt: skip
    count = sum(array.size for _, array in arrays) - extra + sum(hidden.values())
    return 8 * sum(array.nbytes for _, array in arrays) / count


# ---------------------------------------------------------------------- which layers matter
def sensitivities(model: Any, batches: Sequence[mx.array], settings: QuantizeRecipe) -> dict[str, float]:
    """For each layer the nats per token by which the predictions move when it alone is quantized so.

    batches: token ids [B, T] each. The measure is the divergence KL(model || quantized model), averaged over all
    tokens: never negative, and blind to luck, as a difference of losses is not.
    """
    if not batches:
        raise UserError("to measure how much quantization hurts takes at least one batch of text")
    before = [model(ids) for ids in batches]
    mx.eval(before)
    found = {}
    for path, layer in quantizable(model, settings.weights_per_group).items():
        model.update_modules(tree_unflatten([(path, packed(layer, settings))]))
        nats = sum(float(_divergence(a, model(ids))) for a, ids in zip(before, batches, strict=True))
        model.update_modules(tree_unflatten([(path, layer)]))
        found[path] = nats / sum(ids.size for ids in batches)
    return found


def _divergence(first: mx.array, second: mx.array) -> mx.array:
    """Σ over tokens of KL(first || second), from logits [B, T, vocabulary]."""
    p, q = (x.astype(mx.float32) - mx.logsumexp(x.astype(mx.float32), axis=-1, keepdims=True) for x in (first, second))
    return (mx.exp(p) * (p - q)).sum()


def mixed(
    model: nn.Module, hurt: Mapping[str, float], low: QuantizeRecipe, high: QuantizeRecipe, budget: float
) -> Plan:
    """`high` for the layers that hurt most per weight, `low` for the others, within `budget` bits per weight.

    The budget counts the quantized layers with their scales (those in 16 bits). Raises UserError where even `low`
    everywhere exceeds it.
    """
    layers = quantizable(model, max(low.weights_per_group, high.weights_per_group))
    sizes = {path: matrix_shape(layer)[0] * matrix_shape(layer)[1] for path, layer in layers.items()}
    least, most = format_bits(low), format_bits(high)
    room = (budget - least) * sum(sizes.values())
    if room < 0:
        raise UserError(f"a budget of {budget} bits per weight is below the {least:.3g} that the low format takes")
    plan = dict.fromkeys(layers, low)
    for path in sorted(layers, key=lambda path: -hurt[path] / sizes[path]):
        cost = (most - least) * sizes[path]
        if cost <= room:
            plan[path], room = high, room - cost
    return plan


def format_bits(settings: QuantizeRecipe) -> float:
    """Bits per weight of a format: the weight, and its share of the scale (and of the offset), 16 bits or 8."""
    shared = 32 if settings.mode == "affine" else 8
    return settings.num_bits + shared / settings.weights_per_group
