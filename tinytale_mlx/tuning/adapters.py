"""An adapter is a value: named arrays and a few numbers. It is made, put on a model, taken off, mixed with others.

    adapter = new_adapter(model, settings, key)
    tuned = attach(model, adapter)          # the model is frozen but for the adapter's arrays
    ... train tuned.model ...
    with tuned.disabled(): ...              # the base, to the last bit
    trained = tuned.adapter()               # to save, to switch, to combine

Several adapters side by side are several of these values; `tuned.use(other)` switches without copying anything. Names
and shapes are mlx-lm's, so its tools read what `adapter_files.py` writes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..errors import UserError
from ..models.parameters import named_arrays
from ..recipe.tuning import TuneRecipe
from . import targets
from .adapter_value import SOFT, Adapter, check_fits, fingerprint
from .dora import DoRAEmbedding, DoRALinear, initial_magnitude
from .lora import LEAVES, LoRA, LoRAEmbedding, LoRALinear, initial_weights, matrix_shape
from .prefix import PrefixTuned, initial_prefix
from .prompt import Prompted, PromptEmbedding, PromptTuned, initial_ids, initial_prompt
from .targets import EMBEDDING


# ---------------------------------------------------------------------- making
def new_adapter(model: nn.Module, settings: TuneRecipe, key: mx.array, words: list[int] | None = None) -> Adapter:
    """An untrained adapter for `model`, drawn from `key`; `words`: the ids that a prompt or prefix begins as.

    Put on the model, LoRA and DoRA change nothing yet; a prompt acts as its words would.

    Raises:
        UserError: targets that match nothing, more layers than there are, weights to be trained that are quantized.
    """
    weights: dict[str, mx.array] = {}
    if settings.method in ("lora", "dora"):
        weights = _new_updates(model, settings, key)
    elif settings.method in ("prompt", "prefix"):
        rows = len(targets.token_embedding(model)[1].weight)
        ids = initial_ids(rows, settings.prompt_length, key, words)
        if settings.method == "prompt":
            weights = {"prompt": initial_prompt(model, ids)}
        else:
            weights = dict(zip(SOFT[1:], initial_prefix(model, ids), strict=True))
    weights |= _trained_whole(model, settings)
    mx.eval(weights)
    return Adapter(settings.method, weights, settings.multiplier, settings.dropout, fingerprint(model))


def _new_updates(model: nn.Module, settings: TuneRecipe, key: mx.array) -> dict[str, mx.array]:
    found = targets.match_targets(model, settings.targets, settings.layers)
    weights = {}
    for (path, layer), own in zip(found.items(), mx.random.split(key, len(found)), strict=True):
        if settings.rank > min(matrix_shape(layer)):
            raise UserError(
                f"rank {settings.rank} is more than {path} has, {min(matrix_shape(layer))}; choose a smaller one"
            )
        weights |= {f"{path}.{name}": array for name, array in initial_weights(layer, settings.rank, own).items()}
        if settings.method == "dora":
            weights[f"{path}.m"] = initial_magnitude(layer)
    return weights


def _trained_whole(model: nn.Module, settings: TuneRecipe) -> dict[str, mx.array]:
    """The arrays of the model that are to be trained as they are."""
    found: targets.Layers = {}
    if settings.method == "full":
        inside = targets.block_paths(model, settings.layers)
        found = {p: m for p, m in targets.modules(model).items() if settings.layers is None or p in inside}
    if settings.train_embeddings:
        found |= targets.embeddings(model)
    if settings.train_final_norm:
        found |= targets.final_norm(model)
    if settings.train_head:
        found |= targets.head(model)
    arrays = targets.array_paths(found)
    packed = [name for name, array in arrays.items() if not mx.issubdtype(array.dtype, mx.floating)]
    if packed:
        raise UserError(
            f"{packed[0]} is quantized and can't be trained itself; dequantize the model, or train LoRA only"
        )
    twice: set[str] = set()
    if settings.method in ("lora", "dora"):
        twice = targets.match_targets(model, settings.targets, settings.layers).keys() & found.keys()
    elif settings.method == "prompt":
        twice = {targets.token_embedding(model)[0]} & found.keys()
    if twice:
        raise UserError(f"{min(twice)} gets an adapter and is to be trained whole as well; choose one")
    return arrays


# ---------------------------------------------------------------------- putting on and taking off
class Tuned:
    """A base model with an adapter on: `model` is what to train and to call. Made by `attach`.

    With a prompt or a prefix `model` is a new one around `base`, and after `use` another; else it is `base` itself.
    Everything but the adapter's arrays is frozen. A compiled function must know the model's state
    (`inputs=[model.state]`), or it goes on with what it was compiled with.
    """

    def __init__(self, base: nn.Module, adapter: Adapter, keep_base: bool = True):
        self.base, self.keep_base = base, keep_base
        self.model: Any = base
        self.trainable_before = [name for name, _ in named_arrays(base.trainable_parameters())]
        self._like = adapter
        self._originals: dict[str, mx.array] = {}
        self._put_on(adapter)

    def adapter(self) -> Adapter:
        """What is on now, with the weights as they are now."""
        now = dict(named_arrays(self.model.parameters()))
        inside, path = ("model.", self.model.path) if isinstance(self.model, Prompted) else ("", "")
        soft = f"model.{path}." if path else ""
        names = {name: (soft if name in SOFT else inside) + name for name in self._like.weights}
        return replace(self._like, weights={name: now[path] for name, path in names.items()})

    def use(self, adapter: Adapter, any_base: bool = False) -> None:
        """Put another adapter in the place of this one. Raises UserError as `attach` does; then this one stays."""
        before = self.adapter()
        self.detach()
        try:
            check_fits(self.base, adapter, any_base)
        except UserError:
            self._put_on(before)
            raise
        self._put_on(adapter)

    @contextmanager
    def disabled(self) -> Iterator[nn.Module]:
        """The base model, bit for bit, until the end of the block: the reference that RLHF compares with."""
        now = self.adapter()
        if isinstance(self.model, Prompted):  # whoever holds the model keeps it
            self.model.on = False
            self.base.update(tree_unflatten(list(self._originals.items())))
        else:
            self.detach()
        try:
            yield self.model
        finally:
            if isinstance(self.model, Prompted):
                self.model.on = True
                self.base.update(tree_unflatten(list(now.whole.items())))
            else:
                self._put_on(now)

    def detach(self) -> nn.Module:
        """Take the adapter off; the base is what it was, and as trainable as it was."""
        if not self.keep_base and self._like.whole:
            raise UserError("the base's weights were not kept, and the trained ones have taken their place")
        found = [(path, m.base) for path, m in self.base.named_modules() if isinstance(m, (LoRA, PromptEmbedding))]
        self.base.update_modules(tree_unflatten(found))
        self.base.update(tree_unflatten(list(self._originals.items())))
        self.model = self.base
        train_only(self.base, self.trainable_before)
        return self.base

    def _put_on(self, adapter: Adapter) -> None:
        self._like = adapter
        whole, soft = adapter.whole, {n: a for n, a in adapter.weights.items() if n in SOFT}
        if self.keep_base:
            now = dict(named_arrays(self.base.parameters()))
            self._originals = {name: now[name] for name in whole}
        self.base.update(tree_unflatten(list(whole.items())))
        layers = targets.modules(self.base)
        wrapped = [(path, _wrapped(layers[path], path, adapter)) for path in adapter.paths]
        self.base.update_modules(tree_unflatten(wrapped))
        train_only(self.base, [name for name in adapter.weights if name not in SOFT])
        if adapter.method == "prompt":
            self.model = PromptTuned(self.base, **soft)
        elif adapter.method == "prefix":
            self.model = PrefixTuned(self.base, **soft)


def attach(model: nn.Module, adapter: Adapter, any_base: bool = False, keep_base: bool = True) -> Tuned:
    """Put an adapter on a model. `keep_base` False gives up going back, and so a copy of what is trained whole.

    Raises:
        UserError: the model has one on; the adapter is for another base (its fingerprint, unless `any_base`; names
            and shapes in any case).
    """
    if any(isinstance(module, (LoRA, PromptEmbedding, Prompted)) for _, module in model.named_modules()):
        raise UserError("the model has an adapter on already; take it off first, or fuse it")
    check_fits(model, adapter, any_base)
    return Tuned(model, adapter, keep_base)


def _wrapped(layer: nn.Module, path: str, adapter: Adapter) -> LoRA:
    dora = adapter.method == "dora"
    if isinstance(layer, EMBEDDING):
        kind = DoRAEmbedding if dora else LoRAEmbedding
    else:
        kind = DoRALinear if dora else LoRALinear
    weights = {leaf: adapter.weights[f"{path}.{leaf}"] for leaf in LEAVES if f"{path}.{leaf}" in adapter.weights}
    return kind(layer, weights, adapter.scale, adapter.dropout)


def train_only(model: nn.Module, names: Sequence[str]) -> None:
    """Freeze the model but for the arrays of these names."""
    model.freeze()
    found = {"": model, **dict(model.named_modules())}
    for name in names:
        parent, _, leaf = name.rpartition(".")
        found[parent].unfreeze(recurse=False, keys=leaf)
