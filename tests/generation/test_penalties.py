"""Rules against repetition: their sign, what they count, and where nothing would be left."""

import itertools
import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.generation.penalties import ban, repeats_ngram, token_counts
from tinytale_mlx.generation.sampling import Sampler
from tinytale_mlx.recipe import GenerateRecipe

LOGITS = mx.array([[2.0, -2.0, 1.0, -1.0, 0.0]])


def ruled(history: list[list[int]], logits: mx.array = LOGITS, **settings: Any) -> np.ndarray:
    sampler = Sampler(GenerateRecipe(**settings), len(history))
    assert sampler.needs_history
    return np.array(sampler.ruled(logits, mx.array(history)))


# ---------------------------------------------------------------------- penalties
def test_repetition_makes_less_likely_whatever_the_sign():
    assert ruled([[0, 1, 1, -1]], repetition_penalty=2.0).tolist() == [[1.0, -4.0, 1.0, -1.0, 0.0]]


def test_below_one_it_makes_likelier():
    assert ruled([[0, 1]], repetition_penalty=0.5).tolist() == [[4.0, -1.0, 1.0, -1.0, 0.0]]


def test_frequency_counts_and_presence_does_not():
    history = [[1, 1, 1, 4]]
    assert ruled(history, frequency_penalty=0.5).tolist() == [[2.0, -3.5, 1.0, -1.0, -0.5]]
    assert ruled(history, presence_penalty=0.5).tolist() == [[2.0, -2.5, 1.0, -1.0, -0.5]]
    assert ruled(history, frequency_penalty=0.5, presence_penalty=-1.0).tolist() == [[2.0, -2.5, 1.0, -1.0, 0.5]]


def test_each_row_has_its_own_past():
    history = [[0, -1, -1], [-1, 2, 2], [-1, -1, -1]]
    found = ruled(history, mx.broadcast_to(LOGITS, (3, 5)), frequency_penalty=1.0)
    assert (found - np.array(LOGITS)).tolist() == [[-1, 0, 0, 0, 0], [0, 0, -2, 0, 0], [0, 0, 0, 0, 0]]


def test_counts_leave_out_what_is_no_token_here():
    assert np.array(token_counts(mx.array([[-1, 0, 3, 99, 3]]), 4)).tolist() == [[1, 0, 0, 2]]


def test_it_does_change_what_is_drawn():
    sampler = Sampler(GenerateRecipe(temperature=0.0, repetition_penalty=3.0))
    assert sampler(LOGITS, mx.random.key(0)[None], mx.array([[0]]))[0].item() == 2


# ---------------------------------------------------------------------- no n-gram twice
def naive(row: list[int], size: int) -> set[int]:
    """Every earlier place, one after the other."""
    row = [token for token in row if token >= 0]
    tail = row[len(row) - size + 1 :]
    if len(row) < size:
        return set()
    return {row[i + size - 1] for i in range(len(row) - size + 1) if row[i : i + size - 1] == tail}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_no_ngram_twice(size: int, dice: np.random.Generator):
    """Against a loop, with gaps at the left, at the right and anywhere."""
    for length in (1, 2, 5, 40):
        history = dice.integers(0, 3, (30, length))
        history[:10, : length // 3] = -1
        history[10:20, length - length // 2 :] = -1
        history[20:][dice.random((10, length)) < 0.3] = -1
        found = np.array(repeats_ngram(mx.array(history), size, 5))
        assert [set(np.flatnonzero(row)) for row in found] == [naive(row, size) for row in history.tolist()]


def test_text_without_a_repeated_pair():
    """Greedy always wants to say 2; it can't twice after the same token."""
    sampler = Sampler(GenerateRecipe(temperature=0.0, no_repeat_ngram=2))
    text = [0]
    logits = mx.array([[2.0, 1.0, 3.0, 0.0]])
    for _ in range(12):
        text.append(int(sampler(logits, mx.random.key(0)[None], mx.array([text]))[0].item()))
    pairs = list(itertools.pairwise(text))
    assert len(set(pairs)) == len(pairs)
    assert text[:5] == [0, 2, 2, 0, 0]


def test_where_all_is_forbidden_all_is_allowed():
    assert np.isfinite(ruled([[0, 1, 2, 3, 4]], no_repeat_ngram=1)).all()
    banned = mx.array([[True, False, True], [True, True, False]])
    logits = mx.array([[1.0, -math.inf, 2.0], [1.0, 2.0, 3.0]])
    assert np.array(ban(logits, banned)).tolist() == [[1.0, -math.inf, 2.0], [-math.inf, -math.inf, 3.0]]


def test_bans_leave_the_draw_exact():
    """What is left keeps its proportions."""
    rows = mx.broadcast_to(LOGITS, (20_000, 5))
    history = mx.broadcast_to(mx.array([[3, 0, 3, 2, 3]]), (20_000, 5))
    sampler = Sampler(GenerateRecipe(temperature=1.0, top_p=1.0, no_repeat_ngram=2), 20_000)
    observed = np.bincount(np.array(sampler(rows, mx.random.split(mx.random.key(0), 20_000), history)[0]), minlength=5)
    expected = 20_000 * np.exp([-np.inf, -2.0, -np.inf, -1.0, 0.0]) / np.exp([-2.0, -1.0, 0.0]).sum()
    assert observed[[0, 2]].tolist() == [0, 0]
    assert ((observed - expected)[[1, 3, 4]] ** 2 / expected[[1, 3, 4]]).sum() < 23.0  # 99.999 % for two degrees
