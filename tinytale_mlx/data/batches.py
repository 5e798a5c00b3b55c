"""Tokens to batches: a pure function of (seed, step), so that to resume, a run needs its step and no more.

The token stream is cut into windows of `context` predictions. Each epoch visits every window once, in an
order that a keyed permutation computes one position at a time: a Feistel network with cycle walking (Black &
Rogaway 2002; levanter orders its data this way). It needs no memory and no state, whatever the size of the
corpus. The tokens themselves stay on disk, memory-mapped, as in nanoGPT.
"""

import math
from collections.abc import Iterator

import numpy as np

from ..errors import UserError

Batch = tuple[np.ndarray, np.ndarray]
"""tokens int32 [B, T+1] (inputs are [:, :-1], targets [:, 1:]) and the targets' weights float32 [B, T]."""

ROUNDS = 8  # four would do on large halves, but those of a small corpus are a few values wide


class Batches:
    """Training batches over `tokens`, [N] of an unsigned integer type, usually a `np.memmap`.

    Window w of an epoch is `tokens[phase + w*T : phase + w*T + T + 1]`: neighbours share one token, which is
    the last target of one and the first input of the next. There are (N - 1) // T windows. The first epoch
    has phase 0; every later one shifts the grid by a seeded phase < T, so that it shows other windows. The
    tokens are read as a ring for that: a window that passes the end goes on at the beginning, which looks
    like any other border between two documents. An epoch thus predicts (N - 1) // T * T tokens, each once;
    the remainder, at most T, is a different one in every epoch.

    With `starts`, int64 [windows], such as `document_starts` gives, window w begins there instead, in every epoch.

    Raises:
        UserError: fewer windows than `batch_size`.
    """

    def __init__(
        self, tokens: np.ndarray, context: int, batch_size: int, seed: int, starts: np.ndarray | None = None
    ) -> None:
        needed = batch_size * context + 1
        if len(tokens) < needed:
            raise UserError(
                f"the training text has {len(tokens):,} tokens, and one batch of {batch_size} x {context} "
                f"needs {needed:,}; use more text, or a smaller train.batch_size or model.context"
            )
        self.tokens = np.asarray(tokens)  # still the mapped file; without what the memmap class adds per call
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        self.windows = (len(tokens) - 1) // context if starts is None else len(starts)
        self._given = starts
        if self.windows < batch_size:
            raise UserError(
                f"the training text has {self.windows:,} documents, and one batch takes {batch_size:,}; "
                "use more text, a smaller train.batch_size, or data.rows=windows"
            )
        self._reach = np.arange(context + 1)

    def at(self, step: int) -> Batch:
        """Batch `step` >= 0, maybe across epochs: tokens int32 [B, T+1], weights float32 [B, T], all 1."""
        if step < 0:
            raise ValueError(f"there is no batch {step}; the first one is 0")
        epoch, position = divmod(step * self.batch_size, self.windows)
        here = min(self.batch_size, self.windows - position)  # the rest is in the next epoch, never beyond it
        starts = self._starts(epoch, np.arange(position, position + here))
        if here < self.batch_size:
            starts = np.concatenate([starts, self._starts(epoch + 1, np.arange(self.batch_size - here))])
        tokens = self.tokens.take(starts[:, None] + self._reach, mode="wrap").astype(np.int32)
        return tokens, np.ones((self.batch_size, self.context), np.float32)

    def _starts(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Where the windows at these positions of the epoch begin: int64, same shape."""
        random = np.random.SeedSequence(self.seed, spawn_key=(epoch,)).generate_state(ROUNDS + 1, np.uint64)
        windows = permute(positions, self.windows, random[:ROUNDS])
        if self._given is not None:
            return self._given[windows]
        phase = int(random[ROUNDS]) % self.context if epoch else 0
        return windows * self.context + phase


def document_starts(offsets: np.ndarray, context: int) -> np.ndarray:
    """Window starts, int64, so that every document begins one; a longer one goes on in further windows.

    offsets [documents + 1] as in `Shard`. A window's rest shows how the next document begins. A small model learns a
    tale's cast sooner from rows that hold one tale than from windows that hold the ends of two.
    """
    lengths = np.diff(offsets)
    rows = np.maximum(-(-(lengths - 1) // context), 1)
    first_row = np.cumsum(rows) - rows
    number = np.arange(rows.sum()) - np.repeat(first_row, rows)  # of the window within its document
    return np.repeat(offsets[:-1], rows) + number * context


def permute(positions: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """A permutation of range(size), chosen by `keys` (uint64, one per round), at the given positions; int64.

    The network permutes a grid of rows x columns, the squarest that holds `size`. Following it from a value
    until it comes back below `size` (the grid has few cells more, so mostly at once) makes a permutation of
    range(size).
    """
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    values = _feistel(positions.astype(np.uint64), rows, columns, keys)
    while len(outside := np.flatnonzero(values >= size)):
        values[outside] = _feistel(values[outside], rows, columns, keys)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, rows: int, columns: int, keys: np.ndarray) -> np.ndarray:
    """One pass over uint64 values: shift each in its column by a hash of that, then in its row, and again."""
    sizes = np.uint64(rows), np.uint64(columns)
    halves = [values // sizes[1], values % sizes[1]]
    for number, key in enumerate(keys):
        this, other = number % 2, 1 - number % 2
        halves[this] = (halves[this] + _mix(halves[other] + key) % sizes[this]) % sizes[this]
    return halves[0] * sizes[1] + halves[1]


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def validation_batches(tokens: np.ndarray, context: int, batch_size: int) -> Iterator[Batch]:
    """Every token but the first predicted exactly once, in order; shapes as in `Batches.at`.

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
        yield rows, real.astype(np.float32).reshape(batch_size, context)


def document_batches(tokens: np.ndarray, offsets: np.ndarray, context: int, batch_size: int) -> Iterator[Batch]:
    """Every document on its own: each of its tokens but the first predicted exactly once; shapes as in `Batches.at`.

    tokens [N] and offsets [documents + 1] as in `Shard`. What a row holds beyond its document weighs 0.
    """
    starts = document_starts(offsets, context)
    ends = offsets[np.searchsorted(offsets, starts, side="right")]
    tokens, reach = np.asarray(tokens), np.arange(context + 1)
    for first in range(0, len(starts), batch_size):
        begin, end = (np.zeros(batch_size, np.int64) for _ in range(2))  # a missing row holds nothing
        count = len(starts[first : first + batch_size])
        begin[:count], end[:count] = starts[first : first + count], ends[first : first + count]
        places = begin[:, None] + reach
        weights = (places[:, 1:] < end[:, None]).astype(np.float32)
        yield tokens.take(places, mode="wrap").astype(np.int32), weights
