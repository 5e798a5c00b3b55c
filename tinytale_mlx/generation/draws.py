"""What the next token of each row of a batch is drawn with: the row's last token, its randomness, and its past."""

from collections.abc import Collection, Sequence

import mlx.core as mx

from .keys import position_keys
from .sampling import Sampler

HISTORY_STEP = 256


class Draws:
    """`draws(logits, ...)` draws a token for each of `rows` rows and notes it; a row that begins anew forgets its past.

    `tokens` [B] are the last ones, which the next step reads.
    """

    def __init__(self, sampler: Sampler, rows: int):
        self.tokens = mx.zeros((rows,), mx.int32)
        self._sampler = sampler
        self._keys = mx.zeros((rows, 2), mx.uint32)
        self._history = mx.full((rows, 0), -1, mx.int32)

    def begin(self, row: int, key: mx.array, ids: Sequence[int]) -> None:
        """A text with the ids so far, of which the sampler has seen none."""
        self._keys = mx.where(_is(row, self._keys), key, self._keys)
        for name, values in self._sampler.state.items():
            self._sampler.state[name] = mx.where(_is(row, values), 0, values)
        if self._sampler.needs_history:
            self._make_history(len(ids))
            past = mx.array([*ids, *[-1] * (self._history.shape[1] - len(ids))])
            self._history = mx.where(_is(row, self._history), past, self._history)

    def follow(self, row: int, token: int) -> None:
        """The next step of the row reads this token."""
        self.tokens = mx.where(_is(row, self.tokens), token, self.tokens)

    def select(self, rows: list[int]) -> None:
        """Go on with these rows only, in this order."""
        places = mx.array(rows)
        self.tokens, self._keys, self._history = self.tokens[places], self._keys[places], self._history[places]
        self._sampler.state.update({name: values[places] for name, values in self._sampler.state.items()})

    def __call__(
        self, logits: mx.array, rows: Collection[int], written: list[int], lengths: list[int]
    ) -> tuple[mx.array, mx.array]:
        """Tokens [B], and the model's log-probabilities [B, vocabulary]. Of what is not in `rows`, nothing changes.

        written: how many tokens each row has drawn so far. lengths: how many it has, those of its prompt included.
        """
        before = dict(self._sampler.state)
        keys = position_keys(self._keys, written)
        tokens, logprobs = self._sampler(logits, keys, self._history if self._sampler.needs_history else None)
        tokens = tokens.astype(mx.int32)
        taking = mx.array([row in rows for row in range(len(written))])
        if len(rows) < len(written):
            tokens = mx.where(taking, tokens, self.tokens)
            for name, values in before.items():
                self._sampler.state[name] = mx.where(taking, self._sampler.state[name], values)
        self.tokens = tokens
        if self._sampler.needs_history:
            self._make_history(max(lengths) + 1)
            noted = mx.where(taking, tokens, -1)[:, None]
            self._history = mx.put_along_axis(self._history, mx.array(lengths)[:, None], noted, axis=1)
        return tokens, logprobs

    def _make_history(self, length: int) -> None:
        missing = -(-length // HISTORY_STEP) * HISTORY_STEP - self._history.shape[1]
        if missing > 0:
            self._history = mx.pad(self._history, [(0, 0), (0, missing)], constant_values=-1)


def _is(row: int, values: mx.array) -> mx.array:
    """Booleans that broadcast to values [B, ...]: true in this row."""
    return (mx.arange(values.shape[0]) == row).reshape(-1, *[1] * (values.ndim - 1))
