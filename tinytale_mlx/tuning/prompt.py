"""Prompt tuning (Lester et al. 2021): a few learned rows of the embedding stand before every text.

The model is frozen; the rows are all that is trained, 20 x hidden numbers, and they start as the embeddings of some
words (section 3.2 of the paper: better than noise). To the model they are tokens with ids past its vocabulary, which
no tokenizer writes. So nothing inside the model changes, and caches, positions and generation work as they do.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..errors import UserError
from ..models.cache import KVCache
from .targets import token_embedding


class PromptedCache(KVCache):
    """A kind of its own: it holds more than the text, so nothing may reckon a text's place from its length."""


class Prompted(nn.Module, ABC):
    """A model with something learned before every text; called as the model is, with results for the text alone.

    `on` False leaves it out: then the model is the base. Texts that share a row (`segments`) cannot each have a
    prompt of their own, so they are refused.
    """

    length: int
    """Learned positions before the text."""
    path = ""
    """Of the layer inside the model that holds what is learned; empty where that is here."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model
        self.on = True

    def __call__(
        self, ids: mx.array, cache: Any = None, key: mx.array | None = None, segments: mx.array | None = None
    ) -> mx.array:
        return self._run(self.model, ids, cache, key, segments)

    def hidden(
        self, ids: mx.array, cache: Any = None, key: mx.array | None = None, segments: mx.array | None = None
    ) -> mx.array:
        return self._run(self.model.hidden, ids, cache, key, segments)

    def logits(self, hidden: mx.array) -> mx.array:
        return self.model.logits(hidden)

    def _run(self, function: Callable, ids: mx.array, cache: Any, key: Any, segments: Any) -> mx.array:
        extra = {name: value for name, value in (("key", key), ("segments", segments)) if value is not None}
        if not self.on or (cache and cache[0].offset > 0):  # or it is in the cache already
            return function(ids, cache=cache, **extra)
        if segments is not None:
            raise ValueError("a learned prompt stands before one text per row; rows of several have segments")
        return self._read(function, ids, cache, extra)

    @abstractmethod
    def _read(self, function: Callable, ids: mx.array, cache: Any, extra: dict[str, mx.array]) -> mx.array:
        """`function(ids)` with what was learned standing before the text."""

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def head(self) -> nn.Module:
        return self.model.head

    @property
    def layers(self) -> list[nn.Module]:
        return self.model.layers

    def make_cache(self) -> Any:
        return [PromptedCache() if type(one).__name__ == "KVCache" else one for one in new_cache(self.model)]


class PromptEmbedding(nn.Module):
    """The table `base`, and below it the rows of `prompt` [length, hidden]; as a head, the table alone."""

    def __init__(self, base: nn.Module, prompt: mx.array):
        super().__init__()
        self.base: Any = base
        self.prompt = prompt

    @property
    def weight(self) -> mx.array:
        return self.base.weight

    def __call__(self, ids: mx.array) -> mx.array:
        rows = len(self.base.weight)
        words = self.base(mx.minimum(ids, rows - 1))
        learned = self.prompt[mx.maximum(ids, rows) - rows].astype(words.dtype)  # ids may be unsigned
        return mx.where((ids >= rows)[..., None], learned, words)

    def as_linear(self, x: mx.array) -> mx.array:
        return self.base.as_linear(x)


class PromptTuned(Prompted):
    """`model` with `prompt` [length, hidden] before every text."""

    def __init__(self, model: nn.Module, prompt: mx.array):
        super().__init__(model)
        path, table = token_embedding(model)
        self.path, self.length = path, len(prompt)
        self.rows = len(table.weight)
        model.update_modules(tree_unflatten([(path, PromptEmbedding(table, prompt))]))

    def _read(self, function: Callable, ids: mx.array, cache: Any, extra: dict[str, mx.array]) -> mx.array:
        before = mx.broadcast_to(mx.arange(self.rows, self.rows + self.length), (len(ids), self.length))
        return function(mx.concatenate([before.astype(ids.dtype), ids], axis=1), cache=cache, **extra)[:, self.length :]


def new_cache(model: Any) -> Any:
    """An empty cache for `model`, ours or mlx-lm's."""
    if hasattr(model, "make_cache"):
        return model.make_cache()
    return [KVCache() for _ in model.layers]


def initial_ids(vocabulary: int, length: int, key: mx.array, words: list[int] | None) -> mx.array:
    """[length] ids to begin with: those of `words`, repeated or cut, or without any, random ones.

    Raises UserError for an empty list and for an id that the vocabulary does not have.
    """
    if words is None:
        return mx.random.randint(0, vocabulary, (length,), key=key)
    if not words or max(words) >= vocabulary:
        raise UserError(f"a prompt begins as words of the vocabulary, ids from 0 to {vocabulary - 1}, at least one")
    return mx.array((words * -(-length // len(words)))[:length])


def initial_prompt(model: nn.Module, ids: mx.array) -> mx.array:
    """The embeddings [length, hidden] of ids [length], in float32."""
    return token_embedding(model)[1](ids).astype(mx.float32)
