"""Rows: how a stream of tokens is cut into training sequences.

All kinds know how many rows an epoch has, and make any of them when asked. Windows of the text, one after the
other, are what GPT-2 and nanoGPT train on. Rows that begin with a document teach a small model sooner how documents
begin. `packing.py` has the third kind. The tokens stay on disk, memory-mapped, as in nanoGPT.
"""

from typing import NamedTuple, Protocol

import numpy as np

from .order import ROUNDS, counting, draw


class Batch(NamedTuple):
    """Training sequences: inputs are tokens[:, :-1], targets tokens[:, 1:].

    tokens: int32 [B, T+1]. weights: float32 [B, T], how much each target counts. segments: int32 [B, T+1], which
    document of its row each token belongs to, so that attention stays within one; None where the row is one.
    """

    tokens: np.ndarray
    weights: np.ndarray
    segments: np.ndarray | None = None


class Rows(Protocol):
    context: int
    """T: predictions in a row."""
    count: int
    """Rows in an epoch."""

    def rows(self, epoch: int, numbers: np.ndarray) -> Batch:
        """The rows of these numbers, int64 [n], each >= 0 and < count; a pure function."""
        ...


class WindowRows:
    """Any window of `tokens`, [N] of an unsigned integer type, usually a `np.memmap`.

    Window w of an epoch is `tokens[phase + w*T : phase + w*T + T + 1]`: neighbours share one token, which is
    the last target of one and the first input of the next. There are (N - 1) // T windows. The first epoch
    has phase 0; every later one shifts the grid by a seeded phase < T, so that it shows other windows. The
    tokens are read as a ring for that: a window that passes the end goes on at the beginning, which looks
    like any other border between two documents. An epoch thus predicts (N - 1) // T * T tokens, each once;
    the remainder, at most T, is a different one in every epoch.

    With `offsets`, int64 [documents + 1], there are segments, and the first token of a document weighs 0.
    """

    def __init__(self, tokens: np.ndarray, context: int, seed: int, offsets: np.ndarray | None = None) -> None:
        self.context = context
        self.count = max(len(tokens) - 1, 0) // context
        self._tokens = np.asarray(tokens)  # still the mapped file; without what the memmap class adds per call
        self._seed, self._offsets = seed, offsets

    def rows(self, epoch: int, numbers: np.ndarray) -> Batch:
        phase = int(draw(self._seed, epoch)[ROUNDS]) % self.context if epoch else 0
        return _cut(self._tokens, numbers * self.context + phase, self.context, self._offsets)


class DocumentRows:
    """Rows that begin at `starts`, int64 [rows], such as `document_starts` gives; the same in every epoch.

    What is left of a row behind its document shows how the next one begins. With `offsets` as in `WindowRows`.
    """

    def __init__(self, tokens: np.ndarray, starts: np.ndarray, context: int, offsets: np.ndarray | None = None) -> None:
        self.context = context
        self.count = len(starts)
        self._tokens, self._starts, self._offsets = np.asarray(tokens), starts, offsets

    def rows(self, epoch: int, numbers: np.ndarray) -> Batch:
        return _cut(self._tokens, self._starts[numbers], self.context, self._offsets)


def _cut(tokens: np.ndarray, starts: np.ndarray, context: int, offsets: np.ndarray | None) -> Batch:
    """T + 1 tokens from each of these places on, round the end where it comes to that."""
    places = starts[:, None] + np.arange(context + 1)
    cut = tokens.take(places, mode="wrap").astype(np.int32)
    if offsets is None:
        return Batch(cut, np.ones((len(starts), context), np.float32))
    laps, places = np.divmod(places, len(tokens))
    documents = np.searchsorted(offsets, places, side="right") + laps * (len(offsets) - 1)
    weights = (documents[:, 1:] == documents[:, :-1]).astype(np.float32)
    return Batch(cut, weights, (documents - documents[:, :1]).astype(np.int32))


def document_starts(offsets: np.ndarray, context: int) -> np.ndarray:
    """Row starts, int64, so that every document begins one; a longer one goes on in further rows.

    offsets [documents + 1] as in `Shard`. An empty document has no row. A small model learns a tale's cast sooner
    from rows that hold one tale than from windows that hold the ends of two.
    """
    return document_pieces(offsets, context)[0]


def document_pieces(offsets: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pieces of all documents begin and end, int64 each: at most T + 1 tokens, hence T predictions.

    Two pieces of a document share one token, the last target of one and the first input of the next, so that each
    token but the document's first is a target exactly once.
    """
    lengths = np.diff(offsets)
    pieces = np.where(lengths > 0, np.maximum(-(-(lengths - 1) // context), 1), 0)
    begins = np.repeat(offsets[:-1], pieces) + counting(pieces) * context
    return begins, np.minimum(begins + context + 1, np.repeat(offsets[1:], pieces))


def assemble(where: list[np.ndarray], parts: list[Batch]) -> Batch:
    """One batch from parts, whose rows go to these places of it."""
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate(where))
    tokens, weights, segments = zip(*parts, strict=True)
    joined = None if segments[0] is None else np.concatenate(segments)[order]
    return Batch(np.concatenate(tokens)[order], np.concatenate(weights)[order], joined)
