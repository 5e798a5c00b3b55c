"""Packed rows: as many whole documents in a row as fit, so that little of a batch is padding.

Rows of a fixed length are bins, documents are things of different sizes: bin packing, which is NP-hard in general
and easy here, because lengths are small integers and many documents share one. As in Krell et al. 2021 (Efficient
Sequence Packing without Cross-contamination), the plan is made from the histogram of lengths. Best fit decreasing,
the usual choice (Ding et al. 2024, Fewer Truncations Improve Language Modeling), puts one document after the other
where it leaves least room. Here instead each row is filled as well as any subset of what is left can fill it
(Gupta & Ho 1999, Minimum Bin Slack), the longest document that is left always being one of it, and the same
filling is used as often as there are documents for it. Where a row has room for two or three documents only, that
leaves half the padding; a million documents take a fraction of a second.
"""

import numpy as np

from .order import counting
from .rows import Batch, document_pieces


class PackedRows:
    """Rows of T + 1 tokens that hold whole documents, in the order of the text, then padding of weight 0.

    tokens [N] and offsets [documents + 1] as in `Shard`. A document of more than T + 1 tokens is cut into pieces, see
    `document_pieces`; one of less than two has nothing to predict, and is left out. With `mask` there are segments,
    and what begins a piece weighs 0. Without, attention reaches back to the documents before, and the first token of
    a document is predicted from them as in any window; only that of a piece that goes on with a document, which was
    a target before, weighs 0. Of examples for fine-tuning, `weights` [N] says besides how much each token counts.

    The plan is made once, 20 bytes a piece. It does not depend on the seed: the order of the rows does.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        offsets: np.ndarray,
        context: int,
        mask: bool = False,
        weights: np.ndarray | None = None,
    ) -> None:
        self.context = context
        self._tokens, self._offsets, self._mask = np.asarray(tokens), offsets, mask
        self._weights = weights
        begins, ends = document_pieces(offsets, context)
        useful = ends - begins >= 2
        begins, lengths = begins[useful], (ends - begins)[useful].astype(np.int32)
        row, self.count = pack(lengths, context + 1)
        order = np.argsort(row, kind="stable")
        self._begins, self._lengths = begins[order], lengths[order]
        self._borders = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=self.count))])

    @property
    def filled(self) -> float:
        """The share of tokens that are no padding."""
        return float(self._lengths.sum(dtype=np.int64)) / (self.count * (self.context + 1)) if self.count else 0.0

    def rows(self, epoch: int, numbers: np.ndarray) -> Batch:
        size, width = len(numbers), self.context + 1
        counts = self._borders[numbers + 1] - self._borders[numbers]
        within = counting(counts)
        pieces = np.repeat(self._borders[numbers], counts) + within
        begins, lengths = self._begins[pieces], self._lengths[pieces].astype(np.int64)
        ends = np.cumsum(lengths)
        before = ends - lengths  # tokens in front of each piece, in this batch without padding
        firsts = np.repeat(np.arange(size) * width - before[np.cumsum(counts) - counts], counts) + before
        step = counting(lengths)
        to = np.repeat(firsts, lengths) + step

        source = np.repeat(begins, lengths) + step
        tokens = np.zeros(size * width, np.int32)
        tokens[to] = self._tokens.take(source)
        segments = np.repeat(counts, width).astype(np.int32)  # padding is a segment of its own, the last
        segments[to] = np.repeat(within, lengths)
        tokens, segments = tokens.reshape(size, width), segments.reshape(size, width)
        targets = segments[:, 1:] == segments[:, :-1]
        if not self._mask:
            targets |= self._opens(begins, firsts, size)[:, 1:]
        weights = (targets & (segments[:, 1:] < counts[:, None])).astype(np.float32)
        if self._weights is not None:
            own = np.zeros(size * width, np.float32)
            own[to] = self._weights.take(source)
            weights *= own.reshape(size, width)[:, 1:]
        return Batch(tokens, weights, segments if self._mask else None)

    def _opens(self, begins: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
        """bool [size, T + 1]: where among these places a document begins, and not only a piece."""
        opens = np.zeros(size * (self.context + 1), bool)
        opens[places] = self._offsets[np.searchsorted(self._offsets, begins)] == begins
        return opens.reshape(size, self.context + 1)


def pack(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Which row each piece goes to, int32 [pieces], and how many rows there are. lengths [pieces], <= capacity."""
    counts = np.bincount(lengths, minlength=capacity + 1)
    by_length = np.argsort(lengths.astype(np.min_scalar_type(capacity)), kind="stable")
    first = (np.cumsum(counts) - counts).tolist()  # of each length, the place in `by_length` of the next to go
    left, rows = counts.tolist(), 0
    result = np.empty(len(lengths), np.int32)
    for longest in range(capacity, 0, -1):
        while left[longest]:
            filling = _fill(left, longest, capacity)
            times = min(left[length] // number for length, number in filling.items())
            for length, number in filling.items():
                taken = times * number
                chosen = by_length[first[length] : first[length] + taken]
                result[chosen] = np.repeat(np.arange(rows, rows + times), number)
                first[length] += taken
                left[length] -= taken
            rows += times
    return result, rows


def _fill(left: list[int], longest: int, capacity: int) -> dict[int, int]:
    """The fullest row with a `longest` in it, of which there is one at least: {length: number of pieces}.

    left [capacity + 1]: pieces left of each length. Bit s of `reachable` says that some pieces add up to s; lengths
    are tried from the longest down until the room can be filled to the last token.
    """
    room = capacity - longest
    reachable, full = 1, (1 << (room + 1)) - 1
    tried: list[tuple[int, int]] = []  # a length, and what was reachable without it
    for length in range(min(longest, room), 0, -1):
        number = min(left[length] - (length == longest), room // length)
        if number <= 0:
            continue
        tried.append((length, reachable))
        chunk = 1
        while number:  # by 1, 2, 4 ... pieces at a time
            chunk = min(chunk, number)
            reachable |= (reachable << (chunk * length)) & full
            number -= chunk
            chunk *= 2
        if reachable >> room & 1:
            break
    filling = {longest: 1}
    best = reachable.bit_length() - 1
    for length, without in reversed(tried):
        while not without >> best & 1:
            filling[length] = filling.get(length, 0) + 1
            best -= length
    return filling
