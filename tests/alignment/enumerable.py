"""A world small enough to list: four letters and an end, three tokens at most, so 85 responses to one prompt.

A table of logits for each of the 21 beginnings is the policy; it offers `hidden` and `logits` as a Transformer does, so
the trainers that train it are those that train a model. The best policy under a price of KL is known in closed form.
"""

from contextlib import nullcontext
from itertools import product
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tinytale_mlx.alignment.rollout import Responses
from tinytale_mlx.alignment.scoring import Rows, lay_out

EOS, LETTERS, LENGTH, BEGIN = 0, 4, 3, 5
TOKENS = LETTERS + 1
SEQUENCES: list[list[int]] = [
    [*word, *([EOS] if length < LENGTH else [])]
    for length in range(LENGTH + 1)
    for word in product(range(1, TOKENS), repeat=length)
]
INDEX = {tuple(sequence): i for i, sequence in enumerate(SEQUENCES)}
STATES = sum(LETTERS**length for length in range(LENGTH))


class Table(nn.Module):
    """`hidden` of a row: which beginning it is at each place, one-hot; `logits`: that beginning's row of the table."""

    def __init__(self, seed: int = 0, scale: float = 1.0):
        super().__init__()
        self.table = mx.array(scale * np.random.default_rng(seed).normal(size=(STATES, TOKENS)), mx.float32)

    def hidden(self, ids: mx.array) -> mx.array:
        letters = mx.maximum(ids[:, 1:LENGTH] - 1, 0)  # what follows an end is never looked at
        first = 1 + letters[:, 0]
        states = [mx.zeros_like(first), first]
        states.append(1 + LETTERS + LETTERS * letters[:, 0] + letters[:, 1])
        places = mx.stack([*states, *[states[0]] * (ids.shape[1] - LENGTH)], axis=1)
        return (places[..., None] == mx.arange(STATES)).astype(mx.float32)

    def logits(self, hidden: mx.array) -> mx.array:
        return hidden @ self.table


def probabilities(model: Any) -> np.ndarray:
    """Of each of SEQUENCES, float64."""
    rows = lay_out([[BEGIN]] * len(SEQUENCES), SEQUENCES, 1, LENGTH)
    states = np.array(model.hidden(mx.array(rows.ids))).argmax(axis=-1)
    table = np.array(model.table, np.float64)
    table -= np.log(np.exp(table).sum(axis=1, keepdims=True))
    logs = [sum(table[states[i, t], y] for t, y in enumerate(sequence)) for i, sequence in enumerate(SEQUENCES)]
    return np.exp(logs)


def sampler(model: Any, prompts: Any, samples_per_prompt: int, key: mx.array) -> list[list[int]]:
    """Whole responses at once, each with its probability."""
    count = len(prompts) * samples_per_prompt
    uniform = np.array(mx.random.uniform(shape=(count,), key=key), np.float64)
    drawn = np.searchsorted(np.cumsum(probabilities(model)), uniform)
    return [SEQUENCES[i] for i in np.minimum(drawn, len(SEQUENCES) - 1)]


REWARDS = np.random.default_rng(1).uniform(-1, 1, len(SEQUENCES)).astype(np.float32)


def scorer(responses: Responses) -> np.ndarray:
    return np.array([REWARDS[INDEX[tuple(tokens)]] for tokens in responses.tokens])


def best(reference: np.ndarray, beta: float) -> np.ndarray:
    """π* ∝ π_ref exp(r / β)."""
    weights = reference * np.exp((REWARDS - REWARDS.max()) / beta)
    return weights / weights.sum()


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p‖q)."""
    return float((p * (np.log(p + 1e-300) - np.log(q + 1e-300))).sum())


def fixed(model: Any) -> Any:
    """A reference for the trainers: this model, which nobody trains."""
    return lambda: nullcontext(model)


def all_rows() -> Rows:
    return lay_out([[BEGIN]] * len(SEQUENCES), SEQUENCES, 1, LENGTH)


# ---------------------------------------------------------------------- one token only
class Bandit(nn.Module):
    """The same with a single token, of five: a response is a choice."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.table = mx.array(0.7 * np.random.default_rng(seed).normal(size=(1, TOKENS)), mx.float32)

    def hidden(self, ids: mx.array) -> mx.array:
        return mx.ones((*ids.shape, 1))

    def logits(self, hidden: mx.array) -> mx.array:
        return hidden @ self.table

    def probabilities(self) -> np.ndarray:
        weights = np.exp(np.array(self.table[0], np.float64))
        return weights / weights.sum()


CHOICES = np.array([0.4, -0.3, 0.2, 0.8, -0.5], np.float32)


def choose(model: Any, prompts: Any, samples_per_prompt: int, key: mx.array) -> list[list[int]]:
    drawn: Any = mx.random.categorical(
        mx.broadcast_to(model.table, (len(prompts) * samples_per_prompt, TOKENS)), key=key
    )
    return [[token] for token in drawn.tolist()]


def score_choice(responses: Responses) -> np.ndarray:
    return CHOICES[[tokens[0] for tokens in responses.tokens]]
