"""Batches for fine-tuning: examples of like length together, as many as a budget of tokens allows.

Examples are short and of many lengths. A batch of any eight is a quarter padding; sorted by length, a batch has hardly
any, and many short examples take the place of few long ones (Vaswani et al. 2017, section 5.1; fairseq's
`--max-tokens`). Unlike packing, no example ever sees another, and no attention mask is needed.
"""

import numpy as np

from ..errors import UserError
from .order import ROUNDS, counting, draw, permute
from .rows import Batch


class BinnedBatches:
    """Every example once an epoch, in batches of at most `budget_tokens` predictions, padding included.

    tokens [N], weights [N] (how much each token counts as a target) and offsets, int64 [examples + 1], as in
    `masks.ConversationSet`. Examples are padded to one of `widths` lengths, those that need least padding: few, because
    each shape is traced anew, which costs about half a step. Of examples that are padded alike, each epoch puts other
    ones together, and it shows the batches in another order. Every batch but one, of the shortest examples, is full.

    Of `ranks` processes, each gets its share of a batch's rows; what does not come out even is filled up with
    rows of weight 0, so that all have the same shape, and together they have the batch of one process.

    Raises:
        UserError: no example, or one that is longer than the budget.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        weights: np.ndarray,
        offsets: np.ndarray,
        budget_tokens: int,
        seed: int,
        widths: int = 16,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        lengths = np.diff(offsets)
        if not len(lengths):
            raise UserError("there is no example to train on")
        if lengths.max() - 1 > budget_tokens:
            raise UserError(
                f"the longest example has {lengths.max():,} tokens, and a batch may have {budget_tokens:,}; "
                "allow more, or leave out long examples"
            )
        self._tokens, self._weights, self._offsets, self._seed = tokens, weights, offsets, seed
        self._rank, self._ranks = rank, ranks
        needed = np.maximum(lengths - 1, 1)
        width = np.minimum(_widths(needed, widths), budget_tokens)
        padded = width[np.searchsorted(width, needed)]
        self._by_length = np.argsort(-padded, kind="stable")  # longest first
        self._padded = padded[self._by_length]
        # Examples padded alike are a group; where each begins, and the end of the last.
        self._groups = np.append(np.flatnonzero(np.diff(self._padded, prepend=0)), len(lengths))
        self._borders = _borders(self._padded, budget_tokens)
        self.count = len(self._borders) - 1
        """Batches in an epoch."""

    @property
    def filled(self) -> float:
        """The share of predictions that are no padding."""
        cells = (np.diff(self._borders) * self._padded[self._borders[:-1]]).sum()
        return float(np.maximum(np.diff(self._offsets) - 1, 0).sum() / cells)

    def at(self, step: int) -> Batch:
        """Batch `step` >= 0: tokens int32 [B, T+1], weights float32 [B, T]; B and T differ from batch to batch."""
        if step < 0:
            raise ValueError(f"there is no batch {step}; the first one is 0")
        epoch, place = divmod(step, self.count)
        number = int(permute(np.array([place]), self.count, draw(self._seed, epoch)[:ROUNDS])[0])
        first, last = self._borders[number], self._borders[number + 1]
        examples = self._by_length[self._shuffled(np.arange(first, last), epoch)]
        share = -(-len(examples) // self._ranks)
        return self._rows(examples[share * self._rank : share * (self._rank + 1)], share, int(self._padded[first]))

    def _shuffled(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """Which examples stand at these places of the epoch: each group is shuffled within itself."""
        result = np.empty_like(places)
        groups = np.searchsorted(self._groups, places, side="right") - 1
        for group in np.unique(groups).tolist():
            of = np.flatnonzero(groups == group)
            begin, end = self._groups[group : group + 2].tolist()
            result[of] = begin + permute(places[of] - begin, end - begin, draw(self._seed, epoch, group)[:ROUNDS])
        return result

    def _rows(self, examples: np.ndarray, rows: int, context: int) -> Batch:
        begins = self._offsets[examples]
        lengths = self._offsets[examples + 1] - begins
        step = counting(lengths)
        to = np.repeat(np.arange(len(examples)) * (context + 1), lengths) + step
        source = np.repeat(begins, lengths) + step
        tokens = np.zeros(rows * (context + 1), np.int32)
        weights = np.zeros(rows * (context + 1), np.float32)
        tokens[to], weights[to] = self._tokens[source], self._weights[source]
        return Batch(tokens.reshape(rows, -1), weights.reshape(rows, -1)[:, 1:].copy())


def _widths(needed: np.ndarray, most: int) -> np.ndarray:
    """The `most` widths for which these lengths need least padding, in rising order.

    Dynamic programming over the distinct lengths (above 1,024, over multiples of 2 or more): what k widths cost for the
    shortest ones, from what k - 1 cost for fewer of them.
    """
    grain = 1 + int(needed.max()) // 1024
    sizes, counts = np.unique(-(-needed // grain) * grain, return_counts=True)
    before = np.append(0, np.cumsum(counts))
    # cost[i, j]: of the sizes i to j, all padded to the last.
    cost = np.triu((before[1:] - before[:-1, None]) * sizes.astype(np.float64))
    cost[np.tril_indices(len(sizes), -1)] = np.inf
    best = np.append(0, np.full(len(sizes), np.inf))
    choices = []
    for _ in range(min(most, len(sizes))):
        total = best[:-1, None] + cost
        choices.append(total.argmin(axis=0))
        best = np.append(np.inf, total.min(axis=0))
    end, chosen = len(sizes), []
    for choice in reversed(choices):
        chosen.append(sizes[end - 1])
        end = choice[end - 1]
    return np.array(chosen[::-1])


def _borders(padded: np.ndarray, budget: int) -> np.ndarray:
    """Where each batch begins, and the end of the last; `padded` lengths are in falling order."""
    borders = [0]
    while borders[-1] < len(padded):
        borders.append(min(borders[-1] + budget // int(padded[borders[-1]]), len(padded)))
    return np.array(borders)
