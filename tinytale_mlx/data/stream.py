"""Batches straight from documents, for a corpus that is not to be stored: read, encoded and forgotten.

Shuffling is that of streamed data sets everywhere: a buffer of rows, from which a seeded draw takes one whenever a
new one comes in. The batches are the same function of (seed, step) as any others, but to get to a step, all that
comes before it has to be read again.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ..errors import UserError
from .batches import Batch

BUFFER_ROWS = 2048
"""At 512 tokens a row, 8 MB."""


class StreamBatches:
    """Training batches over windows of `context` predictions, as they come; neighbours share one token.

    `epoch` starts over: it gives the tokens of the training documents, uint [n] each, the same every time. What is
    left at the end of an epoch, less than a window, goes into the next one.
    """

    def __init__(
        self,
        epoch: Callable[[], Iterable[np.ndarray]],
        context: int,
        batch_size: int,
        seed: int,
        buffer: int = BUFFER_ROWS,
    ) -> None:
        self.context, self.batch_size, self.seed = context, batch_size, seed
        self._epoch, self._buffer = epoch, buffer
        self._next = 0
        self._rows = self._shuffled()

    def at(self, step: int) -> Batch:
        """Batch `step` >= 0: tokens int32 [B, T+1], weights float32 [B, T]. Going back means reading from the start.

        Raises:
            UserError: the whole corpus does not fill one window.
        """
        if step < 0:
            raise ValueError(f"there is no batch {step}; the first one is 0")
        if step < self._next:
            self._next, self._rows = 0, self._shuffled()
        while True:
            rows = [next(self._rows) for _ in range(self.batch_size)]
            self._next += 1
            if self._next > step:
                break
        return Batch(np.stack(rows), np.ones((self.batch_size, self.context), np.float32))

    def _shuffled(self) -> Iterator[np.ndarray]:
        held: list[np.ndarray] = []
        rng = np.random.default_rng(self.seed)
        for row in self._windows():
            if len(held) < self._buffer:
                held.append(row)
                continue
            place = rng.integers(self._buffer)
            held[place], row = row, held[place]
            yield row

    def _windows(self) -> Iterator[np.ndarray]:
        """Rows int32 [T+1], without an end."""
        left = np.zeros(0, np.int32)
        while True:
            found = False
            for tokens in self._epoch():
                left = np.concatenate([left, tokens.astype(np.int32)])
                count = (len(left) - 1) // self.context
                for start in range(0, count * self.context, self.context):
                    found = True
                    yield left[start : start + self.context + 1]
                left = left[max(count, 0) * self.context :]
            if not found:
                raise UserError(
                    f"the training text does not fill one window of {self.context} tokens; use more text, or a smaller "
                    "model.context"
                )
