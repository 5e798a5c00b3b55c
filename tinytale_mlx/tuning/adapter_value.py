"""The value of an adapter: what was learned, and whether it is for a given model.

It keeps a fingerprint of the model that it was trained on: what fits by names and shapes alone may belong to another.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import UserError
from ..models.parameters import named_arrays
from . import targets
from .lora import LEAVES, matrix_shape
from .prefix import initial_prefix
from .targets import EMBEDDING

Method = Literal["full", "lora", "dora", "prompt", "prefix"]
SOFT = ("prompt", "prefix_keys", "prefix_values")
SAMPLE = 256
"""Elements of each array that a fingerprint looks at."""


@dataclass(frozen=True)
class Adapter:
    """What was learned. `weights`: `path.lora_a`, `path.lora_b`, `path.m`; or prompt; or prefix_keys and
    prefix_values; and under their own names arrays of the model that were trained whole."""

    method: Method
    weights: dict[str, mx.array] = field(repr=False)
    scale: float = 1.0
    dropout: float = 0.0
    base: str | None = None
    """The fingerprint of the model that it was trained on; None if its writer did not say."""

    @property
    def rank(self) -> int:
        """Of the updates; 0 where there are none."""
        return next((a.shape[1] for name, a in self.weights.items() if name.endswith(".lora_a")), 0)

    @property
    def paths(self) -> list[str]:
        """The layers that have an update."""
        return [name.removesuffix(".lora_a") for name in self.weights if name.endswith(".lora_a")]

    @property
    def whole(self) -> dict[str, mx.array]:
        """Arrays of the model that were trained as they are."""
        return {name: a for name, a in self.weights.items() if name.rsplit(".", 1)[-1] not in (*LEAVES, *SOFT)}


# ---------------------------------------------------------------------- is it for this model?
def fingerprint(model: nn.Module) -> str:
    """Names, shapes and a sample of every array. The same weights in 16 and in 32 bits have the same fingerprint."""
    digest = hashlib.blake2b(digest_size=16)
    arrays = sorted(named_arrays(model.parameters()))
    samples = [_sample(array) for _, array in arrays]
    mx.eval(samples)
    for (name, array), sample in zip(arrays, samples, strict=True):
        digest.update(f"{name}{list(array.shape)}".encode())
        digest.update(np.array(sample).tobytes())
    return digest.hexdigest()


def _sample(array: mx.array) -> mx.array:
    found = array.reshape(-1)[:: -(-array.size // SAMPLE)]
    return found.astype(mx.float32) if mx.issubdtype(found.dtype, mx.floating) else found


def check_fits(model: nn.Module, adapter: Adapter, any_base: bool) -> None:
    """Whether an adapter can go on a model: its names and shapes, and unless `any_base` its fingerprint.

    Raises UserError in one sentence that names the first few misfits.
    """
    layers, arrays = targets.modules(model), dict(named_arrays(model.parameters()))
    wrong = []
    for path in adapter.paths:
        layer = layers.get(path)
        if not isinstance(layer, (*targets.LINEAR, *EMBEDDING)):
            wrong.append(f"there is no layer {path}")
            continue
        a, b = adapter.weights[f"{path}.lora_a"], adapter.weights.get(f"{path}.lora_b")
        shape = matrix_shape(layer)
        expected = shape if isinstance(layer, EMBEDDING) else shape[::-1]
        if b is None or (a.shape[0], b.shape[-1]) != expected or a.shape[1] != b.shape[0]:
            wrong.append(f"{path} is {expected[0]} by {expected[1]}, and the update is not")
    for name, array in adapter.whole.items():
        if name not in arrays or arrays[name].shape != array.shape:
            wrong.append(f"there is no {name} of shape {list(array.shape)}")
    wrong += _soft_misfits(model, adapter)
    if wrong:
        more = f", and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise UserError(f"the adapter is for another model: {'; '.join(wrong[:2])}{more}")
    if not any_base and adapter.base is not None and adapter.base != fingerprint(model):
        raise UserError("the adapter was trained on a model with the same shapes and other weights")


def _soft_misfits(model: Any, adapter: Adapter) -> list[str]:
    if adapter.method == "prompt":
        width = matrix_shape(targets.token_embedding(model)[1])[1]
        found = adapter.weights["prompt"].shape[-1]
        return [] if found == width else [f"its prompt is {found} wide and the embedding {width}"]
    if adapter.method == "prefix":
        one = initial_prefix(model, mx.array([0]))[0].shape
        found = adapter.weights["prefix_keys"].shape
        same = (found[0], found[1], found[3]) == (one[0], one[1], one[3])
        return [] if same else [f"its prefix has layers, heads and sizes {list(found)} and the model {list(one)}"]
    return []
