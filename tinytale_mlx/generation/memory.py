"""What a model remembers of the rows that it writes: prompts are read into it, then each step adds a token to each row.

`Slots` keeps all rows in buffers of fixed shape, so that the step can be compiled (`models/slots.py`). It serves every
model whose layers keep plain keys and values, mlx-lm's too: their caches are replaced by ours, by the same protocol.
`Separate` lets a model use caches of its own kind (recurrent states, windows that differ between layers), row by row.
"""

from collections.abc import Callable, Collection
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from ..errors import UserError
from ..models.cache import KVCache, QuantizedKVCache, Stored, grown, whole_steps
from ..models.elementary import scalar_exp
from ..models.slots import SPARE, QuantizedSlotCache, Ring, SlotCache, as_slots

PREFILL = 256
"""Prompt tokens of a row per forward pass, which bounds the memory that a long prompt takes."""

GROUP_SIZES = (128, 64, 32)
"""Numbers of a key that share a scale, where the cache is quantized: the largest that divides a head is taken."""


class Memory(Protocol):
    """`lengths[row]`: how many tokens the row has. A row that is not wanted any more is trimmed to 0."""

    lengths: list[int]
    rolls: bool
    """Whether it forgets what is far back, and so never is full."""

    def read(self, rows: list[int], prompts: list[list[int]], again: bool = False) -> None:
        """Continue each row by its prompt. With `again`, the same prompt will be asked for once more."""
        ...

    def forward(self, tokens: mx.array, rows: Collection[int]) -> mx.array:
        """Logits [all rows, T, vocabulary] after tokens [all rows, T]; only `rows` get longer by them."""
        ...

    def trim(self, row: int, length: int) -> None:
        """Let a row be as it was when it had `length` tokens, or empty where that can't be done."""
        ...

    def select(self, rows: list[int]) -> None:
        """Go on with these rows only, in this order."""
        ...


class Slots:
    """Rows in buffers of fixed shape. kv_bits: keys and values in so many bits. ring: keep the last tokens only."""

    def __init__(self, model: Any, rows: int = 1, kv_bits: int | None = None, ring: Ring | None = None):
        self.lengths, self._furthest = [0] * rows, [0] * rows
        self.rolls = ring is not None
        self._model, self._ring = model, ring
        self._layers = len(model.make_cache() if hasattr(model, "make_cache") else model.layers)
        self._packing = None if kv_bits is None else {"bits": kv_bits, "group_size": _group_size(model, kv_bits)}
        self._buffers: list[Stored] = []
        self._shelf: tuple[list[int], list[Stored]] = ([], [])
        self._step = _compiled_step(model, self._packing, ring)

    # ------------------------------------------------------------------ reading
    def read(self, rows: list[int], prompts: list[list[int]], again: bool = False) -> None:
        if len(rows) > 1 and (self._ring or any(self.lengths[row] for row in rows)):
            for row, ids in zip(rows, prompts, strict=True):
                self.read([row], [ids], again)
            return
        different = [list(ids) for ids in {tuple(ids): None for ids in prompts if ids}]
        if not different:
            return
        fresh = not any(self.lengths[row] for row in rows)
        found = self._shelf[1] if fresh and different == [self._shelf[0]] else self._read(different, rows[0])
        self._shelf = (different[0], found) if fresh and again and len(different) == 1 else ([], [])
        takers = [(row, different.index(ids)) for row, ids in zip(rows, prompts, strict=True) if ids]
        self._put(found, takers)
        for row, number in takers:
            self.lengths[row] += len(different[number])

    def _read(self, prompts: list[list[int]], row: int) -> list[Stored]:
        """Buffers [prompts, ...] that have read these; a single prompt continues what the row has."""
        caches = self._caches(row)
        ids = _padded(prompts)
        for start in range(0, ids.shape[1], PREFILL):
            self._model(ids[:, start : start + PREFILL], cache=caches)
            mx.eval([cache.state for cache in caches])
        capacity = self._ring.capacity if self._ring else whole_steps(caches[0].offset)
        return [as_slots(cache, capacity, self._ring) for cache in caches]

    def _caches(self, row: int) -> list[KVCache]:
        start = self.lengths[row]
        if start and self._ring:
            raise ValueError("a ring forgets, so a text in it is not continued by a prompt")
        made = [KVCache() if self._packing is None else QuantizedKVCache(**self._packing) for _ in range(self._layers)]
        if start:
            for cache, buffers in zip(made, self._buffers, strict=True):
                cache.keys, cache.values = tree_map(lambda buffer: buffer[row : row + 1], buffers)
                cache.offset = start
        return made

    def _put(self, found: list[Stored], takers: list[tuple[int, int]]) -> None:
        """Give rows of the buffers what was found: (row, number of the prompt)."""
        if takers == [(row, row) for row in range(len(self.lengths))]:  # nobody else has anything
            self._buffers = found
            return
        rows, numbers = (mx.array(list(places)) for places in zip(*takers, strict=True))
        if not self._buffers:
            self._buffers = tree_map(lambda b: mx.zeros((len(self.lengths), *b.shape[1:]), b.dtype), found)

        def put(buffer: mx.array, new: mx.array) -> mx.array:
            buffer = grown(buffer, new.shape[2])
            buffer[rows, :, : new.shape[2]] = new[numbers]
            return buffer

        self._buffers = tree_map(put, self._buffers, found)
        mx.eval(self._buffers)

    # ------------------------------------------------------------------ writing
    def forward(self, tokens: mx.array, rows: Collection[int]) -> mx.array:
        count = tokens.shape[1]
        self._make_room(max(self.lengths) + count)
        logits, self._buffers = self._step(tokens, mx.array(self.lengths), self._buffers)
        for row in rows:
            self.lengths[row] += count
        return logits

    def _make_room(self, length: int) -> None:
        if not self._buffers:
            self._buffers = self._empty()
        if self._ring is None:
            self._buffers = tree_map(lambda buffer: grown(buffer, whole_steps(length)), self._buffers)

    def _empty(self) -> list[Stored]:
        """Buffers of zeros, of the shapes that a first token has; it is not computed."""
        caches = self._caches(0)
        self._model(mx.zeros((len(self.lengths), 1), mx.int32), cache=caches)
        capacity = self._ring.capacity if self._ring else KVCache.STEP
        return [tree_map(lambda b: mx.zeros((*b.shape[:2], capacity, b.shape[3]), b.dtype), (c.keys, c.values))
                for c in caches]  # fmt: skip

    # ------------------------------------------------------------------ forgetting
    def trim(self, row: int, length: int) -> None:
        self._furthest[row] = max(self._furthest[row], self.lengths[row])
        if self._ring and self._furthest[row] - length > SPARE:
            length = 0  # what it would have to see again has been overwritten
        self.lengths[row] = length
        if length == 0:
            self._furthest[row] = 0

    def select(self, rows: list[int]) -> None:
        places = mx.array(rows)
        self._buffers = tree_map(lambda buffer: buffer[places], self._buffers)
        self.lengths = [self.lengths[row] for row in rows]
        self._furthest = [self._furthest[row] for row in rows]


Step = Callable[[mx.array, mx.array, list[Stored]], tuple[mx.array, list[Stored]]]
"""Logits [B, T, vocabulary] and the new buffers, from tokens [B, T], the rows' lengths [B] and the old buffers."""


def _compiled_step(model: Any, packing: dict[str, int] | None, ring: Ring | None) -> Step:
    """It knows nothing of its `Slots`, whose buffers then are free as soon as nobody wants them any more: a cycle
    through what is compiled would keep them until Python looks for cycles."""
    twins = wants_twins(model)

    def cached(keys: Stored, values: Stored, offset: mx.array, twin: bool) -> SlotCache:
        if packing is None:
            return SlotCache(keys, values, offset, ring, twin)
        return QuantizedSlotCache(**packing, keys=keys, values=values, offset=offset, ring=ring, twin=twin)

    def step(tokens: mx.array, offset: mx.array, buffers: list[Stored]) -> tuple[mx.array, list[Stored]]:
        rows, count = tokens.shape
        twin = twins and rows == count == 1
        caches = [cached(keys, values, offset, twin) for keys, values in buffers]
        logits = model(mx.concatenate([tokens, tokens]) if twin else tokens, cache=caches)
        return logits[:rows], [cache.state for cache in caches]

    # The weights are an input: they may change between two texts, as in training.
    return mx.compile(step, inputs=[model.state])


class Separate:
    """Rows in caches of the model's own kind."""

    rolls = False

    def __init__(self, model: Any, rows: int = 1):
        self.lengths = [0] * rows
        self._model = model
        self._caches: list[Any] = [None] * rows

    def read(self, rows: list[int], prompts: list[list[int]], again: bool = False) -> None:
        for row, ids in zip(rows, prompts, strict=True):
            for start in range(0, len(ids), PREFILL):
                self._model(mx.array([ids[start : start + PREFILL]]), cache=self._cache(row))
                mx.eval([array for _, array in tree_flatten([c.state for c in self._cache(row)])
                         if isinstance(array, mx.array)])  # fmt: skip
            self.lengths[row] += len(ids)

    def forward(self, tokens: mx.array, rows: Collection[int]) -> mx.array:
        logits = {row: self._model(tokens[row : row + 1], cache=self._cache(row)) for row in rows}
        for row in rows:
            self.lengths[row] += tokens.shape[1]
        nothing = mx.zeros_like(next(iter(logits.values())))
        return mx.concatenate([logits.get(row, nothing) for row in range(len(self.lengths))])

    def trim(self, row: int, length: int) -> None:
        lost = self.lengths[row] - length
        if lost and length and all(cache.is_trimmable() for cache in self._cache(row)):
            for cache in self._cache(row):
                cache.trim(lost)
            self.lengths[row] = length
        elif lost:
            self.lengths[row], self._caches[row] = 0, None

    def select(self, rows: list[int]) -> None:
        self.lengths = [self.lengths[row] for row in rows]
        self._caches = [self._caches[row] for row in rows]

    def _cache(self, row: int) -> list[Any]:
        if self._caches[row] is None:
            self._caches[row] = self._model.make_cache()
        return self._caches[row]


def make_memory(model: Any, rows: int = 1, kv_bits: int | None = None, roll: bool = False) -> Memory:
    """The fastest memory that the model can use. roll: go on past the context by forgetting what was first.

    A model with a sliding window forgets what it cannot see in any case. Raises UserError for what can't be had.
    """
    if not keeps_plain_keys(model):
        if kv_bits is not None or roll:
            raise UserError("this model has a cache of its own kind, which can't be quantized or rolled")
        return Separate(model, rows)
    return Slots(model, rows, kv_bits, _ring(model, roll))


def keeps_plain_keys(model: Any) -> bool:
    """Whether each layer keeps the keys and values of all tokens, and nothing else."""
    if not isinstance(model, nn.Module):
        return False
    made: Any = getattr(model, "make_cache", list)()
    return all(type(cache).__name__ == "KVCache" for cache in made)


def context_of(model: Any) -> int | None:
    """The longest text that the model has seen in training, where it says so."""
    if config := getattr(model, "config", None):
        return config.context
    return getattr(getattr(model, "args", None), "max_position_embeddings", None)


def vocabulary_of(model: Any) -> int | None:
    """How many ids the model knows, where it says so."""
    return getattr(getattr(model, "config", None) or getattr(model, "args", None), "vocab_size", None)


def _ring(model: Any, roll: bool) -> Ring | None:
    config = getattr(model, "config", None)
    positions = getattr(config, "positions", "rope")
    if positions not in ("learned", "sinusoidal") and (window := getattr(config, "sliding_window", None)):
        return Ring(window)
    if not roll:
        return None
    context = context_of(model)
    if positions == "learned":
        raise UserError(f"this model has learned {context} positions and knows none beyond them: it can't roll on")
    if context is None:
        raise UserError("this model does not say how long its context is, so there is no window to roll")
    return Ring(max(context - SINKS, 1), SINKS)


SINKS = 4
"""First tokens that a rolling text keeps: without them, models that were trained without a window fall apart."""


def wants_twins(model: Any) -> bool:
    """Whether a single row is computed faster as two equal ones.

    On x86, MKL multiplies one row by a matrix with a kernel that reads memory a third to a half slower than the one
    for two rows. Not so with packed weights, whose cost is the arithmetic.
    """
    return scalar_exp() and not any(isinstance(module, nn.QuantizedLinear) for module in model.modules())


def _group_size(model: Any, bits: int) -> int:
    if bits not in (2, 3, 4, 5, 6, 8):
        raise UserError(f"a cache can have 2, 3, 4, 5, 6 or 8 bits, not {bits}")
    config = getattr(model, "config", None)
    size = config.size_per_head if config is not None else _head_size(model)
    for group in GROUP_SIZES:
        if size % group == 0:
            return group
    raise UserError(f"heads of {size} numbers can't be quantized: that needs a multiple of {GROUP_SIZES[-1]}")


def _head_size(model: Any) -> int:
    arguments = model.args
    return getattr(arguments, "head_dim", None) or arguments.hidden_size // arguments.num_attention_heads


def _padded(prompts: list[list[int]]) -> mx.array:
    """[B, T]: behind a shorter prompt come zeros, which no token before them sees, and which are overwritten."""
    length = max(map(len, prompts))
    return mx.array([[*ids, *[0] * (length - len(ids))] for ids in prompts])
