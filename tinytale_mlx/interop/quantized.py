"""Quantized model directories in mlx-lm's format, written and read.

A quantized matrix X is three arrays, X.weight (packed into 32 bits), X.scales and, for the mode affine, X.biases;
config.json says under "quantization" the usual format and, by path, those that differ. The layouts rename X.weight
only, so the three are renamed one after the other as if each were the weight: they have the same rows.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import UserError
from ..models import Transformer
from ..models.parameters import QUANTIZED, named_arrays
from ..recipe import ModelConfig
from .layouts import Layout
from .spelling import Json, Weights

PARTS = ("weight", "scales", "biases")
FLOATS = {(4, 16): "nvfp4", (4, 32): "mxfp4", (8, 32): "mxfp8"}
"""Bits and group size to the one mode that has 8-bit scales and these."""


def is_quantized(model: nn.Module) -> bool:
    return any(isinstance(module, QUANTIZED) for module in model.modules())


def float_dtype(weights: Weights) -> mx.Dtype:
    """The dtype that the model computes in: that of the first array that is not packed."""
    return next(array.dtype for array in weights.values() if mx.issubdtype(array.dtype, mx.floating))


# ---------------------------------------------------------------------- writing
def dtype_json(weights: Weights) -> Json:
    """What config.json says of the dtype; by the second name for transformers before 4.56."""
    name = str(float_dtype(weights)).removeprefix("mlx.core.")
    return {"dtype": name, "torch_dtype": name}


def weights_out(model: Transformer, layout: Layout) -> tuple[Weights, Json]:
    """The arrays of a quantized model under the layout's names, and what config.json says of them.

    Raises UserError where the layout stacks matrices that are quantized in different formats (GPT-2's q, k and v).
    """
    formats = _formats_out(model, layout)
    plain, scales, biases = _separate(dict(named_arrays(model.parameters())))
    found = _renamed(layout.weights_out(plain, model.config), layout)
    added = found.keys() - _renamed(layout.rename_out(plain, model.config), layout).keys()
    found |= {name: found[name].astype(float_dtype(plain)) for name in added}
    for part, arrays in (("scales", scales), ("biases", biases)):
        renamed = _renamed(layout.rename_out(arrays, model.config), layout)
        found |= {name.removesuffix("weight") + part: array for name, array in renamed.items()}
    return found, formats_json(formats)


def formats_json(formats: dict[str, Json]) -> Json:
    """What config.json says of quantized layers by their paths, if there are any: the usual format, and others."""
    if not formats:
        return {}
    usual = max(formats.values(), key=list(formats.values()).count)
    said = {**usual, **{path: form for path, form in formats.items() if form != usual}}
    return {"quantization": said, "quantization_config": said}


def format_of(layer: Any) -> Json:
    """The format of a quantized layer, as config.json says it."""
    return {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}


def _renamed(weights: Weights, layout: Layout) -> Weights:
    """mlx-lm's own names for GPT-2, with matrices [out, in]: it turns OpenAI's, and packed ones can't be turned."""
    if layout.model_type != "gpt2":
        return weights
    return {f"model.{name}": a.T if ".c_" in name and a.ndim == 2 else a for name, a in weights.items()}


def _formats_out(model: Transformer, layout: Layout) -> dict[str, Json]:
    """The layout's path of each quantized layer, and its format. Numbers instead of weights tell which is which."""
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, QUANTIZED)]
    numbers = {f"{path}.weight": mx.full((len(layer.weight), 1), i) for i, (path, layer) in enumerate(layers)}
    found = {}
    for name, array in _renamed(layout.rename_out(numbers, model.config), layout).items():
        inside = [layers[i] for i in sorted(set(np.array(array).flatten().tolist()))]
        forms = [format_of(layer) for _, layer in inside]
        if forms.count(forms[0]) != len(forms):
            together = ", ".join(path for path, _ in inside)
            raise UserError(f"{together} are one matrix in the layout {layout.name}; quantize them alike")
        found[name.removesuffix(".weight")] = forms[0]
    return found


# ---------------------------------------------------------------------- reading
def weights_in(weights: Weights, layout: Layout, config: ModelConfig) -> Weights:
    """The layout's names to ours; the arrays of a quantized matrix stay three."""
    plain, scales, biases = _separate(weights)
    found = layout.weights_in(plain, config)
    for part, arrays in (("scales", scales), ("biases", biases)):
        renamed = layout.rename_in(arrays, config)
        found |= {name.removesuffix("weight") + part: array for name, array in renamed.items()}
    return found


def fit(model: Transformer, weights: Weights) -> bool:
    """Quantize those layers of `model` that are quantized in `weights`, named as ours, in the formats seen there.

    Returns whether there are any.
    """

    def wanted(path: str, layer: nn.Module) -> bool | Json:
        scales = weights.get(f"{path}.scales")
        if scales is None or not hasattr(layer, "to_quantized"):
            return False
        return _format_seen(path, layer, weights[f"{path}.weight"], scales)

    nn.quantize(model, class_predicate=wanted)
    return is_quantized(model)


def _format_seen(path: str, layer: Any, packed: mx.array, scales: mx.array) -> Json:
    width = layer.weight.shape[-1]
    group_size, bits = width // scales.shape[-1], packed.shape[-1] * 32 // width
    mode = "affine" if scales.dtype != mx.uint8 else FLOATS.get((bits, group_size))
    if mode is None or bits not in (2, 3, 4, 5, 6, 8) or group_size not in (16, 32, 64, 128):
        raise UserError(f"{path} is quantized to {bits} bits in groups of {group_size}, which MLX can't compute with")
    return {"group_size": group_size, "bits": bits, "mode": mode}


def _separate(weights: Weights) -> tuple[Weights, Weights, Weights]:
    """Arrays as they are, then scales and offsets as if they were weights."""
    packed = {name.removesuffix(".scales") for name in weights if name.endswith(".scales")}
    parts: dict[str, Weights] = {part: {} for part in PARTS}
    for name, array in weights.items():
        path, _, part = name.rpartition(".")
        if path in packed and part in ("scales", "biases"):
            parts[part][f"{path}.weight"] = array
        else:
            parts["weight"][name] = array
    return parts["weight"], parts["scales"], parts["biases"]
