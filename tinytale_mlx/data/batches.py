"""Rows to batches: a pure function of (seed, step), so that to resume, a run needs its step and no more.

An order is an endless sequence of rows: those of one source, shuffled anew for every epoch, or of several, mixed
(`mixture.py`). Batch k of size B holds the rows k*B to k*B + B - 1 of it, wherever epochs end.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from ..errors import UserError
from ..recipe import DataRecipe
from .order import ROUNDS, draw, permute
from .packing import PackedRows
from .rows import Batch, DocumentRows, Rows, WindowRows, assemble, document_pieces, document_starts


class End(NamedTuple):
    """Where an order has to stop."""

    position: int
    """Of the first row that may not be shown."""
    source: str
    epochs: int


class Order(Protocol):
    """An endless sequence of rows."""

    context: int
    count: int
    """Different rows there are."""
    end: End | None

    def take(self, positions: np.ndarray) -> Batch:
        """The rows at these positions >= 0 of the sequence, int64 [n]; a pure function."""
        ...

    def shown(self, rows: int) -> dict[str, int]:
        """How many of the first `rows` come from each source; empty where there is one only."""
        ...


class Shuffled:
    """Every row once an epoch, in an order that is a function of (seed, epoch)."""

    def __init__(self, rows: Rows, seed: int) -> None:
        self.context, self.count = rows.context, rows.count
        self.end: End | None = None
        self._rows, self._seed = rows, seed

    def take(self, positions: np.ndarray) -> Batch:
        epochs, places = np.divmod(positions, self.count)
        where = [np.flatnonzero(epochs == epoch) for epoch in np.unique(epochs)]
        return assemble(where, [self._of(int(epochs[of[0]]), places[of]) for of in where])

    def _of(self, epoch: int, places: np.ndarray) -> Batch:
        return self._rows.rows(epoch, permute(places, self.count, draw(self._seed, epoch)[:ROUNDS]))

    def shown(self, rows: int) -> dict[str, int]:
        return {}


class Batches:
    """Training batches of `batch_size` rows; of `ranks` processes, this one gets its share of each.

    Raises:
        UserError: fewer rows than one batch takes, or a batch that the ranks can't share evenly.
    """

    def __init__(self, order: Order, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        if order.count < batch_size:
            raise UserError(
                f"the training text fills {order.count:,} rows of {order.context:,} tokens, and one batch of "
                f"{batch_size} x {order.context} needs {batch_size * order.context + 1:,}; "
                "use more text, or a smaller train.batch_size or model.context"
            )
        if batch_size % ranks:
            raise UserError(f"train.batch_size {batch_size} can't be shared evenly by {ranks} processes")
        self.order, self.batch_size = order, batch_size
        share = batch_size // ranks
        self._mine = np.arange(rank * share, (rank + 1) * share)

    def at(self, step: int) -> Batch:
        """Batch `step` >= 0, maybe across epochs: [B / ranks] rows."""
        if step < 0:
            raise ValueError(f"there is no batch {step}; the first one is 0")
        return self.order.take(step * self.batch_size + self._mine)

    def check(self, steps: int, batches_before: Callable[[int], int] = lambda step: step) -> None:
        """Refuse so many steps if they would show a source more often than it may be.

        `batches_before(n)`: how many batches the first n steps take, where it is not one each.

        Raises:
            UserError: which, and when.
        """
        end = self.order.end
        if end is not None and batches_before(steps) * self.batch_size > end.position:
            most = end.position // self.batch_size
            enough = bisect_right(range(1, steps + 1), most, key=batches_before)
            raise UserError(
                f"the source {end.source} runs out in step {enough + 1:,}: it may be shown in {end.epochs} epochs "
                f"(data.source); raise that, give it less weight, or set train.steps to {enough:,} at most"
            )

    def shown(self, steps: int) -> dict[str, int]:
        """The rows of each source in the first `steps` batches of all ranks; empty where there is one source only."""
        return self.order.shown(steps * self.batch_size)


def make_rows(data: DataRecipe, tokens: np.ndarray, offsets: np.ndarray, context: int, seed: int) -> Rows:
    """The rows that a recipe asks for, from tokens [N] and offsets [documents + 1] as in `Shard`."""
    borders = offsets if data.document_mask else None
    if data.rows == "packed":
        return PackedRows(tokens, offsets, context, data.document_mask)
    if data.rows == "documents":
        return DocumentRows(tokens, document_starts(offsets, context), context, borders)
    return WindowRows(tokens, context, seed, borders)


def validation_batches(tokens: np.ndarray, context: int, batch_size: int) -> Iterator[Batch]:
    """Every token but the first predicted exactly once, in order, and whatever the documents are.

    All batches have the same shape, so that nothing is compiled twice: the end of the last window and the
    missing rows of the last batch are padded with token 0 and weigh 0.

    Raises:
        UserError: fewer than 2 tokens, when called (not at the first batch).
    """
    if len(tokens) < 2:
        count = "1 token" if len(tokens) else "0 tokens"
        raise UserError(
            f"the validation text has {count}, and at least 2 are needed; use more text, or a larger data.validation"
        )
    return _in_order(tokens, context, batch_size)


def _in_order(tokens: np.ndarray, context: int, batch_size: int) -> Iterator[Batch]:
    span = batch_size * context
    for start in range(0, len(tokens) - 1, span):
        piece = np.asarray(tokens[start : start + span + 1], np.int32)
        padded = np.zeros(span + 1, np.int32)
        padded[: len(piece)] = piece
        real = np.arange(span) < len(piece) - 1
        rows = np.lib.stride_tricks.sliding_window_view(padded, context + 1)[::context].copy()
        yield Batch(rows, real.astype(np.float32).reshape(batch_size, context))


def document_batches(tokens: np.ndarray, offsets: np.ndarray, context: int, batch_size: int) -> Iterator[Batch]:
    """Every document on its own: each of its tokens but the first predicted exactly once.

    tokens [N] and offsets [documents + 1] as in `Shard`. What a row holds beyond its document weighs 0.
    """
    begins, ends = document_pieces(offsets, context)
    tokens, reach = np.asarray(tokens), np.arange(context + 1)
    for first in range(0, len(begins), batch_size):
        begin, end = (np.zeros(batch_size, np.int64) for _ in range(2))  # a missing row holds nothing
        count = len(begins[first : first + batch_size])
        begin[:count], end[:count] = begins[first : first + count], ends[first : first + count]
        places = begin[:, None] + reach
        weights = (places[:, 1:] < end[:, None]).astype(np.float32)
        yield Batch(tokens.take(places, mode="wrap").astype(np.int32), weights)
