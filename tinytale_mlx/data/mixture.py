"""Several sources in one order, each with its share of the rows, and still no state: any step at once.

Of the first p rows, the heaviest source gets p times its share, rounded; row p is one of its own where that count
goes up. The next heaviest gets its part of what is left over, and so on. So a line is drawn on a grid (Bresenham
1965): every share is right all along, to a row or two, not only on average. (The lightest first would add up their
roundings in the heavy one's share: three rows with eight sources.) Which rows of a source these are is shuffled.

Temperature is that of multilingual models (Devlin et al. 2018; Conneau et al. 2020): above 1 it draws the shares
together, so that small sources are shown more often.
"""

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .batches import End, Shuffled
from .rows import Batch, Rows, assemble


class Source(NamedTuple):
    """One of a mixture."""

    name: str
    rows: Rows
    weight: float | None = None
    """In relation to those of the others; None, for all of them, is their numbers of rows."""
    epochs: int | None = None
    """It may not be shown more often."""


class Mixture:
    """An order (see `batches.Order`) of the rows of several sources. Of a single one, it is the order of `Shuffled`.

    A source whose epochs come to their end starts the next one on its own. Shares are shares of rows, which are of
    one length, hence of tokens but for padding. Without weights all sources come to the end of an epoch together, as
    if they were one text.

    Raises:
        UserError: no source, one without a row, or weights for some of them only.
    """

    def __init__(self, sources: Sequence[Source], seed: int, temperature: float = 1.0) -> None:
        self._names = [source.name for source in sources]
        weights = _weights(sources, temperature)
        self._falling = sorted(range(len(sources)), key=lambda source: -weights[source])
        self._parts = _parts_of_the_rest([weights[source] for source in self._falling])
        self._orders = [Shuffled(source.rows, seed) for source in sources]
        self.context = sources[0].rows.context
        self.count = sum(source.rows.count for source in sources)
        ends = [self._end(number, source) for number, source in enumerate(sources) if source.epochs]
        self.end: End | None = min(ends, default=None)

    def take(self, positions: np.ndarray) -> Batch:
        sources, numbers = np.array([self._place(position) for position in positions.tolist()]).T
        where = [np.flatnonzero(sources == source) for source in np.unique(sources)]
        return assemble(where, [self._orders[sources[of[0]]].take(numbers[of]) for of in where])

    def shown(self, rows: int) -> dict[str, int]:
        return dict(zip(self._names, self._counts(rows), strict=True))

    def _place(self, position: int) -> tuple[int, int]:
        """Which source this row is of, and how many that has had before."""
        for source, part in zip(self._falling, self._parts, strict=True):
            before = _rounded(position, part)
            if _rounded(position + 1, part) > before:
                return source, before
            position -= before
        raise AssertionError("the last source takes all that is left")

    def _counts(self, rows: int) -> list[int]:
        """How many of the first `rows` are of each source."""
        counts = [0] * len(self._parts)
        for source, part in zip(self._falling, self._parts, strict=True):
            counts[source] = _rounded(rows, part)
            rows -= counts[source]
        return counts

    def _end(self, number: int, source: Source) -> End:
        """Where a source is shown for the first time after its last epoch."""
        assert source.epochs is not None
        limit = source.rows.count * source.epochs
        rows = bisect_left(range(1 << 62), limit + 1, key=lambda count: self._counts(count)[number])
        return End(rows - 1, source.name, source.epochs)


def _rounded(rows: int, part: Fraction) -> int:
    """rows x part to the nearest integer, in exact arithmetic: it goes up by 0 or 1 from one row to the next."""
    return (2 * rows * part.numerator + part.denominator) // (2 * part.denominator)


def _parts_of_the_rest(weights: list[Fraction]) -> list[Fraction]:
    """Of what the sources before have left, the part that each takes; the last one takes it all."""
    rest = list(accumulate(reversed(weights)))[::-1]
    return [weight / whole for weight, whole in zip(weights, rest, strict=True)]


def _weights(sources: Sequence[Source], temperature: float) -> list[Fraction]:
    if not sources:
        raise UserError("data.source names no source")
    if len(sources) == 1:
        return [Fraction(1)]  # however little text it has: `Batches` knows how much is needed
    given = any(source.weight is not None for source in sources)
    for source in sources:
        if source.rows.count == 0:
            raise UserError(
                f"the source {source.name} has too little text for one row of {source.rows.context} tokens; "
                "use more text, or a smaller model.context"
            )
        if source.weight is None and given:
            raise UserError(f"the source {source.name} has no weight and others have; give one to all of them or none")
    weights = [Fraction(source.rows.count if source.weight is None else source.weight) for source in sources]
    if temperature == 1.0:
        return weights
    largest = max(weights)
    weights = [Fraction(float(weight / largest) ** (1 / temperature)) for weight in weights]
    if not all(weights):
        raise UserError(f"data.temperature {temperature} leaves {sources[weights.index(Fraction(0))].name} no share")
    return weights
