"""What a model says of responses: their log-probabilities, and with them the rest, of rows of one fixed shape.

A row is a prompt, right behind it the response, then padding. Causal attention does not look ahead, so padding
changes nothing, and no position has to be moved. Token t of the response was drawn from the hidden state at place
`start - 1 + t`; only those T states get logits, which are the largest arrays here.

`model` is whatever has `hidden(ids)` [B, L] to [B, L, d] and `logits` of those: a Transformer, one with an adapter, or
a table. No key is passed on, so there is no dropout: at the start, new and old probabilities are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .logprobs import masked_sum, token_logps


class Rows(NamedTuple):
    """Prompts with a response each; NumPy's or MLX's arrays."""

    ids: Any
    """[B, P + T] integers: prompt, response, padding of any id."""
    starts: Any
    """[B] integers, 1 or more: tokens of the prompt."""
    mask: Any
    """[B, T] float32: 1 for each token of the response that was chosen, its EOS among them."""


def lay_out(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    prompt_tokens: int,
    response_tokens: int,
    weights: Sequence[Sequence[int]] | None = None,
) -> Rows:
    """Rows of NumPy arrays. Of each prompt the last `prompt_tokens`; responses must fit.

    weights: 0 for what in a response was not chosen by a model, such as a user's turn; left out, all was.
    """
    shape = len(prompts), prompt_tokens + response_tokens
    rows = Rows(np.zeros(shape, np.int32), np.ones(len(prompts), np.int32), np.zeros((shape[0], response_tokens), "f4"))
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        kept = prompt[-prompt_tokens:]
        if not kept or len(response) > response_tokens:
            raise ValueError(f"row {i} has {len(kept)} tokens of prompt and {len(response)} of response")
        rows.ids[i, : len(kept) + len(response)] = [*kept, *response]
        rows.starts[i] = len(kept)
        rows.mask[i, : len(response)] = 1 if weights is None else weights[i]
    return rows


def response_tokens(rows: Rows) -> mx.array:
    """[B, T]: the response, and whatever stands behind it."""
    return mx.take_along_axis(rows.ids, _places(rows), axis=1)


def response_hidden(hidden: mx.array, rows: Rows) -> mx.array:
    """[B, T, d] of hidden states [B, P + T, d]: those that the response's tokens were drawn from."""
    return mx.take_along_axis(hidden, _places(rows)[..., None] - 1, axis=1)


def response_logits(model: Any, rows: Rows, vocabulary: int | None = None) -> mx.array:
    """[B, T, vocabulary]. With `vocabulary`, only of the first so many ids: those that may be sampled."""
    return model.logits(response_hidden(model.hidden(rows.ids), rows))[..., :vocabulary]


def response_logps(model: Any, rows: Rows, temperature: float = 1.0, vocabulary: int | None = None) -> mx.array:
    """log π of each token, float32 [B, T]; 0 where the mask is."""
    logps = token_logps(response_logits(model, rows, vocabulary), _in_vocabulary(rows), temperature)
    return mx.where(rows.mask > 0, logps, 0)


def sequence_logps(model: Any, rows: Rows) -> mx.array:
    """log π of each response, float32 [B]: the sum over its tokens."""
    return masked_sum(response_logps(model, rows), rows.mask)


def last_places(rows: Rows) -> mx.array:
    """[B]: where in `ids` the last token of each response stands; of an empty one, the prompt's."""
    position = mx.arange(1, rows.mask.shape[1] + 1)
    return rows.starts - 1 + mx.where(rows.mask > 0, position, 0).max(axis=1)


def _places(rows: Rows) -> mx.array:
    return rows.starts[:, None] + mx.arange(rows.mask.shape[1])


def _in_vocabulary(rows: Rows) -> mx.array:
    """What stands behind a response may be any id."""
    return mx.where(rows.mask > 0, response_tokens(rows), 0)


# ---------------------------------------------------------------------- a few rows at a time
def micro_batches(arrays: Sequence[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """`size` rows at a time. The last piece is filled up with zeros, a mask of 0 among them: one shape, one trace."""
    for first in range(0, len(arrays[0]), size):
        piece = [array[first : first + size] for array in arrays]
        missing = size - len(piece[0])
        yield [np.pad(a, [(0, missing), *[(0, 0)] * (a.ndim - 1)]) for a in piece] if missing else piece


def in_micro_batches(
    function: Callable[..., Sequence[mx.array]], arrays: Sequence[np.ndarray], size: int
) -> list[np.ndarray]:
    """What the function makes of each row, [N, ...] each; of arrays [N, ...], `size` rows in memory at a time."""
    found = []
    for piece in micro_batches(arrays, size):
        results = list(function(*map(mx.array, piece)))
        mx.eval(results)
        found.append([np.array(result) for result in results])
    return [np.concatenate(parts)[: len(arrays[0])] for parts in zip(*found, strict=True)]
