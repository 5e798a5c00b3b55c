"""Which tokens are the response, how likely they are, and means over them alone."""

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.alignment.logprobs import (
    entropy,
    masked_mean,
    masked_sum,
    masked_whiten,
    response_mask,
    token_logps,
)

EOS = 2


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_response_ends_with_its_first_eos():
    tokens = mx.array([[5, EOS, EOS, 7], [EOS, 1, 1, 1], [5, 6, 7, 8], [5, 6, 7, EOS]])
    assert response_mask(tokens, EOS).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probabilities_are_those_of_the_distribution(rng, temperature):
    logits, tokens = rng.normal(size=(3, 4, 9)) * 5, rng.integers(0, 9, (3, 4))
    scaled = logits / temperature
    everything = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    expected = np.take_along_axis(everything, tokens[..., None], -1)[..., 0]
    found = token_logps(mx.array(logits), mx.array(tokens), temperature)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(
        entropy(mx.array(logits), temperature), -(np.exp(everything) * everything).sum(-1), atol=1e-5
    )


def test_they_are_float32_whatever_the_logits_are(rng):
    logits = mx.array(rng.normal(size=(2, 3, 9)))
    half = token_logps(logits.astype(mx.float16), mx.zeros((2, 3), mx.int32))
    assert half.dtype == mx.float32
    exact = token_logps(logits.astype(mx.float16).astype(mx.float32), mx.zeros((2, 3), mx.int32))
    assert mx.array_equal(half, exact)


def test_even_entropy_is_the_log_of_the_vocabulary():
    assert entropy(mx.zeros((1, 8))).item() == pytest.approx(np.log(8), abs=1e-6)


def test_what_is_masked_does_not_count_even_if_it_is_nan():
    x, mask = mx.array([[1.0, 3.0, float("nan")], [5.0, float("inf"), 1.0]]), mx.array([[1.0, 1, 0], [1, 0, 0]])
    assert masked_sum(x, mask).tolist() == [4, 5]
    assert masked_mean(x, mask).item() == 3
    assert masked_mean(x, mx.zeros((2, 3))).item() == 0
    white = masked_whiten(x, mask)
    assert bool(mx.all(mx.isfinite(white)))
    assert white[0, 2].item() == white[1, 1].item() == white[1, 2].item() == 0


def test_whitening_as_it_was_published():
    """The table of the notes of Huang et al. on Ziegler et al.: population variance, the mean kept."""
    x, everything = 1.2 + 0.1 * mx.arange(9).reshape(3, 3), mx.ones((3, 3))
    published = [[0.0508, 0.4381, 0.8254], [1.2127, 1.6, 1.9873], [2.3746, 2.7619, 3.1492]]
    np.testing.assert_allclose(masked_whiten(x, everything, shift_mean=False), published, atol=1e-4)
    np.testing.assert_allclose(masked_whiten(x, everything), np.array(published) - 1.6, atol=1e-4)


def test_whitening_counts_only_the_mask(rng):
    x, mask = rng.normal(size=(4, 6)) * 3 + 5, (rng.random((4, 6)) < 0.6).astype(np.float32)
    inside = x[mask > 0]
    expected = np.where(mask > 0, (x - inside.mean()) / inside.std(), 0)
    np.testing.assert_allclose(masked_whiten(mx.array(x), mx.array(mask)), expected, atol=1e-5)
