"""Against repetition: rules that look at the text so far. All are arrays in, arrays out, row by row, without a wait.

A history is [B, T]: the ids of each row's prompt and of what was generated since, with -1 where there is nothing.
The -1 may stand anywhere, so rows of different lengths, and buffers that are not full yet, need no care.
"""

import math

import mlx.core as mx


def ban(logits: mx.array, banned: mx.array) -> mx.array:
    """-inf where `banned`; a row of which nothing would be left stays as it is."""
    hopeless = mx.all(banned | (logits == -math.inf), axis=-1, keepdims=True)
    return mx.where(banned & ~hopeless, -math.inf, logits)


def token_counts(history: mx.array, vocabulary: int) -> mx.array:
    """How often each token is in each row: int32 [B, vocabulary]."""
    valid = (history >= 0) & (history < vocabulary)
    rows = mx.arange(history.shape[0])[:, None]
    counts = mx.zeros((history.shape[0], vocabulary), mx.int32)
    return counts.at[rows, mx.where(valid, history, 0)].add(valid.astype(mx.int32))


def penalize_repetition(logits: mx.array, counts: mx.array, penalty: float) -> mx.array:
    """Divide the logits of tokens that were there (Keskar et al. 2019); negative ones are multiplied.

    Dividing a negative logit by a penalty above 1, as the paper has it, would make the token likelier.
    """
    penalized = mx.where(logits < 0, logits * penalty, logits / penalty)
    return mx.where(counts > 0, penalized, logits)


def penalize_counts(logits: mx.array, counts: mx.array, frequency: float, presence: float) -> mx.array:
    """Take `frequency` for each time that a token was there, and `presence` once (OpenAI's two penalties)."""
    return logits - frequency * counts - presence * (counts > 0)


def repeats_ngram(history: mx.array, size: int, vocabulary: int) -> mx.array:
    """bool [B, vocabulary]: the tokens that would complete a sequence of `size` that is in the row already.

    (Paulus et al. 2018.) Every place of the row is compared with its last size - 1 tokens at once.
    """
    batch, length = history.shape
    if length < size:
        return mx.zeros((batch, vocabulary), mx.bool_)
    # The tokens to the left, what is empty to the right: a sequence may reach over a gap.
    places = mx.arange(length)
    left = mx.take_along_axis(history, mx.argsort(mx.where(history < 0, places + length, places), axis=1), axis=1)
    count = mx.sum(left >= 0, axis=1, keepdims=True)
    tail = mx.take_along_axis(left, mx.maximum(count - size + 1 + mx.arange(size - 1), 0), axis=1)
    starts = length - size + 1
    matches = left[:, size - 1 :] >= 0  # and with it, all to its left
    for place in range(size - 1):
        matches = matches & (left[:, place : place + starts] == tail[:, place : place + 1])
    return token_counts(mx.where(matches, left[:, size - 1 :], -1), vocabulary) > 0
