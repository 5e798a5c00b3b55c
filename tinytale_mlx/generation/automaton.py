"""What may be written at all: a table that says which tokens may follow which, and where that leads.

An automaton is an int32 array [states, vocabulary]: `table[state, token]` is the state after the token, or -1 where the
token may not come. Text begins in state 0. A token that ends a text is a token like any other: where it is allowed,
the text may end. Since the table is an array, the sampler follows it on the device without a wait, row by row.
"""

from collections.abc import Collection, Sequence

import mlx.core as mx
import numpy as np

from ..errors import UserError
from ..tokenizers import Tokenizer

NEVER = -1


def choices(tokenizer: Tokenizer, texts: Sequence[str], stop: Collection[int]) -> mx.array:
    """Exactly one of `texts`, then one of the `stop` tokens: a prefix tree of their tokens.

    Raises UserError where there is no choice, an empty one, or no token that ends a text.
    """
    if not texts or not all(texts):
        raise UserError("choices are texts, at least one of them, and none is empty")
    final = ends(tokenizer, stop)
    states: dict[tuple[int, ...], int] = {(): 0}
    moves: list[tuple[int, int, int]] = []
    for ids in sorted({tuple(tokenizer.encode(text, special=False)) for text in texts}):
        for length, token in enumerate(ids):
            before, after = ids[:length], ids[: length + 1]
            if after not in states:
                states[after] = len(states)
                moves.append((states[before], token, states[after]))
        moves += [(states[ids], token, 0) for token in final]
    table = np.full((len(states), tokenizer.vocab_size), NEVER, np.int32)
    for state, token, following in moves:
        table[state, token] = following
    return mx.array(table)


def ends(tokenizer: Tokenizer, stop: Collection[int]) -> list[int]:
    """The tokens of `stop` that the tokenizer has. Raises UserError for none."""
    final = sorted(token for token in stop if token < tokenizer.vocab_size)
    if not final:
        raise UserError(
            "this tokenizer has no end-of-text token (eos), without which no answer of a given form would end"
        )
    return final
