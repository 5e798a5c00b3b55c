"""Which tokens may be drawn, and how often."""

import math

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.generation.sampling import keep_top_k, keep_top_p, sample

KEY = mx.random.key(0)


def kept(logits: mx.array) -> list[list[int]]:
    """The tokens of each row that are left in."""
    return [np.flatnonzero(row).tolist() for row in np.isfinite(np.array(logits))]


def log(*probabilities: float) -> mx.array:
    with np.errstate(divide="ignore"):
        return mx.array(np.log(np.array([probabilities], np.float32)))


# ---------------------------------------------------------------------- greedy
@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 0.5)])
def test_temperature_zero_takes_the_likeliest(batch: int, top_k: int, top_p: float, dice: np.random.Generator):
    logits = dice.normal(size=(batch, 50)).astype(np.float32)
    for seed in range(3):
        chosen = sample(mx.array(logits), mx.random.key(seed), 0.0, top_k, top_p)
        assert np.array(chosen).tolist() == logits.argmax(-1).tolist()


def test_temperature_zero_with_negative_and_masked_logits():
    logits = mx.array([[-5.0, -3.0, -math.inf], [-math.inf, -1e9, -math.inf], [2.0, 2.0, 1.0]])
    assert np.array(sample(logits, KEY, 0.0, 0, 1.0)).tolist() == [1, 1, 0]


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32], ids=str)
def test_a_low_temperature_is_nearly_greedy(dtype: mx.Dtype, dice: np.random.Generator):
    logits = np.repeat(dice.permutation(20)[None].astype(np.float32), 500, axis=0)
    chosen = np.array(sample(mx.array(logits).astype(dtype), KEY, 1e-4, 0, 1.0))
    assert (chosen == logits[0].argmax()).all()


# ---------------------------------------------------------------------- the filters
@pytest.mark.parametrize(
    ("k", "expected"), [(1, [[1], [0]]), (2, [[1, 3], [0, 2]]), (3, [[0, 1, 3], [0, 1, 2, 3]]), (4, [[0, 1, 2, 3]] * 2)]
)
def test_top_k(k: int, expected: list[list[int]]):
    """In the second row two are equal at the border of three: both stay."""
    logits = mx.array([[1.0, 4.0, -1.0, 3.0], [5.0, 0.0, 2.0, 0.0]])
    filtered = keep_top_k(logits, k)
    assert kept(filtered) == expected
    assert all(np.array(filtered)[row, token] == np.array(logits)[row, token]
               for row in range(2) for token in expected[row])  # fmt: skip


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        *((0.01, [2]), (0.49, [2]), (0.51, [0, 2]), (0.74, [0, 2]), (0.76, [0, 2, 4])),
        *((0.91, [0, 2, 3, 4]), (0.99, [0, 1, 2, 3, 4])),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, expected: list[int]):
    assert kept(keep_top_p(log(0.25, 0.05, 0.5, 0.05 + 1e-4, 0.15 - 1e-4), p)) == [expected]


def test_top_p_takes_no_more_than_it_needs():
    """Four equal tokens: exactly half of them make one half."""
    assert [len(kept(keep_top_p(log(0.25, 0.25, 0.25, 0.25), p))[0]) for p in (0.25, 0.5, 0.75)] == [1, 2, 3]


def test_top_p_on_any_distribution(dice: np.random.Generator):
    for temperature in (0.1, 1.0, 5.0):
        logits = (dice.normal(size=(40, 300)) / temperature).astype(np.float32)
        p = float(dice.uniform(0.05, 0.95))
        probabilities = np.exp(logits.astype(np.float64))
        probabilities /= probabilities.sum(-1, keepdims=True)
        for row, tokens in enumerate(kept(keep_top_p(mx.array(logits), p))):
            inside = np.sort(probabilities[row, tokens])
            assert inside.sum() >= p - 1e-5
            assert inside[1:].sum() < p + 1e-5  # without its least likely, it does not reach p
            assert inside[0] >= np.delete(probabilities[row], tokens).max(initial=0)


def test_top_p_after_top_k_never_lets_a_token_back_in():
    logits = keep_top_k(mx.array([[3.0, 2.9, 2.8, -50.0, -60.0]]), 2)
    assert kept(keep_top_p(logits, 0.999999)) == [[0, 1]]


# ---------------------------------------------------------------------- how often
def expected_distribution(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Step by step, for one row without ties."""
    scaled = logits.astype(np.float64) / temperature
    order = np.argsort(-scaled)
    if top_k:
        order = order[:top_k]
    p = np.exp(scaled[order] - scaled.max())
    p /= p.sum()
    inside = np.concatenate([[0.0], np.cumsum(p)[:-1]]) < top_p
    result = np.zeros(len(logits))
    result[order[inside]] = p[inside] / p[inside].sum()
    return result


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        *((1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 0, 1.0), (1.0, 3, 1.0), (1.0, 1, 1.0), (1.0, 100, 1.0)),
        *((1.0, 0, 0.8), (0.7, 5, 0.9), (1.5, 2, 0.95)),
    ],
)
def test_tokens_come_as_often_as_they_should(temperature: float, top_k: int, top_p: float):
    """Pearson's chi-square over 20,000 draws; 33.7 is the 99.999 % point for six degrees of freedom."""
    logits = np.array([1.2, -0.3, 2.0, 0.1, -1.5, 0.8, -4.0], np.float32)
    count = 20_000
    rows = mx.broadcast_to(mx.array(logits), (count, len(logits)))
    chosen = np.array(sample(rows, mx.random.key(7), temperature, top_k, top_p))
    observed = np.bincount(chosen, minlength=len(logits))
    expected = count * expected_distribution(logits, temperature, top_k, top_p)
    assert (observed[expected == 0] == 0).all()
    possible = expected > 0
    assert ((observed - expected)[possible] ** 2 / expected[possible]).sum() < 33.7


def test_the_key_decides(dice: np.random.Generator):
    logits = mx.array(dice.normal(size=(64, 100)).astype(np.float32))
    one = np.array(sample(logits, mx.random.key(1), 1.0, 0, 1.0))
    mx.random.seed(5)
    assert np.array_equal(one, np.array(sample(logits, mx.random.key(1), 1.0, 0, 1.0)))
    assert not np.array_equal(one, np.array(sample(logits, mx.random.key(2), 1.0, 0, 1.0)))
