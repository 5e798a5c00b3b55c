"""The next-token loss against NumPy: sums of nats, each token weighed, in float32 whatever comes in."""

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.training.losses import cross_entropy, next_token_loss

BATCH, LENGTH, VOCABULARY = 3, 7, 11

pytestmark = pytest.mark.usefixtures("either_exp")


@pytest.fixture
def logits(dice: np.random.Generator) -> np.ndarray:
    return (3 * dice.normal(size=(BATCH, LENGTH, VOCABULARY))).astype(np.float32)


@pytest.fixture
def tokens(dice: np.random.Generator) -> np.ndarray:
    return dice.integers(0, VOCABULARY, (BATCH, LENGTH + 1)).astype(np.int32)


@pytest.fixture
def weights(dice: np.random.Generator) -> np.ndarray:
    return dice.choice([0.0, 0.5, 1.0, 2.0], (BATCH, LENGTH)).astype(np.float32)


def reference(logits: np.ndarray, tokens: np.ndarray, weights: np.ndarray) -> float:
    """One token at a time."""
    total = 0.0
    for row in range(len(logits)):
        for position in range(logits.shape[1]):
            scores = logits[row, position].astype(np.float64)
            nats = np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[tokens[row, position + 1]]
            total += nats * weights[row, position]
    return total


def loss(logits: np.ndarray, tokens: np.ndarray, weights: np.ndarray) -> float:
    return next_token_loss(mx.array(logits), mx.array(tokens), mx.array(weights)).item()


def test_the_sum_over_all_tokens(logits: np.ndarray, tokens: np.ndarray, weights: np.ndarray):
    assert loss(logits, tokens, weights) == pytest.approx(reference(logits, tokens, weights), rel=1e-5)
    nothing_known = np.zeros_like(logits)
    expected = weights.sum() * np.log(VOCABULARY)
    assert loss(nothing_known, tokens, weights) == pytest.approx(expected, rel=1e-6)


def test_it_is_a_sum_and_no_mean(logits: np.ndarray, tokens: np.ndarray, weights: np.ndarray):
    rows = [loss(logits[i : i + 1], tokens[i : i + 1], weights[i : i + 1]) for i in range(BATCH)]
    assert sum(rows) == pytest.approx(loss(logits, tokens, weights), rel=1e-5)
    assert loss(logits, tokens, 3 * weights) == pytest.approx(3 * loss(logits, tokens, weights), rel=1e-5)


@pytest.mark.parametrize("ignored", [-100, -1, VOCABULARY, 10**6])
def test_weight_zero_counts_for_nothing(logits: np.ndarray, tokens: np.ndarray, weights: np.ndarray, ignored: int):
    """Whatever the id: -100 is what others mark such tokens with."""
    weights[0] = 0
    other, changed = tokens.copy(), logits.copy()
    other[0, 1:] = ignored
    changed[0] += 1
    assert loss(changed, other, weights) == pytest.approx(reference(logits, tokens, weights), rel=1e-5)

    def gradient(ids: np.ndarray) -> np.ndarray:
        return np.array(mx.grad(next_token_loss)(mx.array(logits), mx.array(ids), mx.array(weights)))

    assert np.array_equal(gradient(other), gradient(tokens))
    assert (gradient(other)[0] == 0).all()


def test_nothing_but_weight_zero(logits: np.ndarray, tokens: np.ndarray):
    assert loss(logits, tokens, np.zeros((BATCH, LENGTH), np.float32)) == 0


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_16_bit_logits_are_summed_in_32(dtype: mx.Dtype):
    """Neither could add up 5,000 terms: a float16 sum of ones ends at 2,048, a bfloat16 one at 256."""
    logits = mx.array([[[8.0, *([0.0] * 5000)]]]).astype(dtype)
    nats = cross_entropy(logits, mx.array([[5]]))
    assert nats.dtype == mx.float32
    assert nats.item() == pytest.approx(np.log(np.exp(8) + 5000), rel=1e-5)
    gradient = mx.grad(lambda x: cross_entropy(x, mx.array([[5]])).sum())(logits)
    assert gradient.dtype == dtype
    assert gradient[0, 0, 0].item() == pytest.approx(np.exp(8) / (np.exp(8) + 5000), rel=1e-2)


def test_gradient(logits: np.ndarray, tokens: np.ndarray, weights: np.ndarray):
    """One logit after the other, by a finite difference of the reference."""
    gradient = np.array(mx.grad(next_token_loss)(mx.array(logits), mx.array(tokens), mx.array(weights)), np.float64)
    exact = logits.astype(np.float64)
    for index in [(0, 0, tokens[0, 1]), (0, 0, 0), (1, 3, 4), (2, 6, tokens[2, 7]), (2, 6, 10), (1, 0, 2)]:
        step = np.zeros_like(exact)
        step[index] = 1e-5
        expected = (reference(exact + step, tokens, weights) - reference(exact - step, tokens, weights)) / 2e-5
        assert gradient[index] == pytest.approx(expected, abs=1e-5)
    assert np.allclose(gradient.sum(-1), 0, atol=1e-5)


def test_logits_of_any_shape(logits: np.ndarray, tokens: np.ndarray):
    flat = cross_entropy(mx.array(logits).reshape(-1, VOCABULARY), mx.array(tokens[:, 1:]).reshape(-1))
    folded = cross_entropy(mx.array(logits), mx.array(tokens[:, 1:]))
    assert folded.shape == (BATCH, LENGTH)
    assert np.allclose(np.array(flat), np.array(folded).reshape(-1), rtol=1e-6)
