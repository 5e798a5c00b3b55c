"""exp and what is made of it, both ways, against NumPy in float64."""

import math
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.models.elementary import gelu_tanh, polynomial_exp, silu, softmax
from tinytale_mlx.training.losses import cross_entropy

WIDE = np.concatenate([np.linspace(-40, 40, 4001), [-1000.0, -100.0, 100.0, 1000.0, 0.0, 1e-30, -1e-30]])


def values(f: Callable[[mx.array], mx.array], x: np.ndarray) -> np.ndarray:
    return np.array(f(mx.array(x.astype(np.float32))), np.float64)


def slope(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    return (f(x + h) - f(x - h)) / (2 * h)


def numpy_silu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.tanh(x / 2))


def numpy_gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def numpy_softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_polynomial_exp_keeps_its_relative_error():
    x = np.linspace(-32, 60, 20001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    error = np.abs(values(polynomial_exp, x) - exact)
    assert (error / exact)[np.abs(x) <= 16].max() < 5e-6
    assert (error / exact)[(x > 0) & (x < 32)].max() < 5e-5
    assert error[x < -16].max() < 2e-12


def test_polynomial_exp_outside_its_range():
    """Exactly nothing below, so that what a mask hides stays hidden; too much above."""
    assert values(polynomial_exp, np.array([-32.0, -32.1, -1000.0, -1e30, -np.inf])).tolist() == [0.0] * 5
    assert values(polynomial_exp, np.array([-31.9]))[0] > 0
    assert values(polynomial_exp, np.array([100.0, 1000.0, np.inf])).tolist() == [np.inf] * 3


@pytest.mark.usefixtures("either_exp")
@pytest.mark.parametrize("f", [silu, gelu_tanh, softmax])
def test_nan_stays_nan(f: Callable[[mx.array], mx.array]):
    """A loss that went wrong must not look right again."""
    assert np.isnan(values(f, np.array([np.nan, np.nan]))).all()
    assert np.isnan(values(f, np.array([np.nan, 1.0]))[0])


@pytest.mark.usefixtures("either_exp")
@pytest.mark.parametrize(("f", "reference"), [(silu, numpy_silu), (gelu_tanh, numpy_gelu_tanh)])
def test_activations(f: Callable[[mx.array], mx.array], reference: Callable[[np.ndarray], np.ndarray]):
    assert np.allclose(values(f, WIDE), reference(WIDE), rtol=1e-5, atol=2e-7)
    gradient = values(mx.grad(lambda x: f(x).sum()), WIDE)
    assert np.allclose(gradient, slope(reference, WIDE), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("either_exp")
def test_activations_have_a_slope_after_their_cotangent():
    """The chain rule reaches the hand-written derivatives: d/dx silu(3x)^2."""
    x = np.linspace(-3, 3, 101)
    gradient = values(mx.grad(lambda x: mx.square(silu(3 * x)).sum()), x)
    assert np.allclose(gradient, slope(lambda x: numpy_silu(3 * x) ** 2, x), rtol=1e-4, atol=1e-5)


SCORES = {
    "usual": np.random.default_rng(1).normal(size=(3, 4, 17)) * 3,
    "spread": np.random.default_rng(2).normal(size=(5, 17)) * 300,
    "extreme": np.array([[1000.0, 0.0, -1000.0], [-1000.0, -1000.0, -1000.0], [1e30, 0.0, -1e30]]),
    "masked": np.array([[0.5, -np.inf, 1.0], [-np.inf, -np.inf, 2.0], [-np.inf, -1000.0, -np.inf]]),
    "ties": np.array([[7.0, 7.0, 7.0, 7.0], [1.0, 1.0, 0.0, -np.inf]]),
    "one": np.array([[3.0], [-5.0]]),
}


@pytest.mark.usefixtures("either_exp")
@pytest.mark.parametrize("x", SCORES.values(), ids=SCORES.keys())
def test_softmax(x: np.ndarray):
    y = values(softmax, x)
    assert np.allclose(y, numpy_softmax(x.astype(np.float32).astype(np.float64)), rtol=2e-5, atol=1e-7)
    assert np.allclose(y.sum(-1), 1, atol=1e-6)
    assert (y[np.isneginf(x)] == 0).all()


@pytest.mark.usefixtures("either_exp")
@pytest.mark.parametrize("x", SCORES.values(), ids=SCORES.keys())
def test_softmax_gradient(x: np.ndarray):
    """p (c - Σ p c): nothing flows through a mask, and no NaN either."""
    cotangent = np.random.default_rng(3).normal(size=x.shape)
    gradient = values(mx.grad(lambda x: (softmax(x) * mx.array(cotangent.astype(np.float32))).sum()), x)
    p = numpy_softmax(x.astype(np.float32).astype(np.float64))
    assert np.allclose(gradient, p * (cotangent - (p * cotangent).sum(-1, keepdims=True)), atol=1e-5)


@pytest.mark.usefixtures("either_exp")
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_softmax_of_16_bits_sums_in_32(dtype: mx.Dtype):
    """5,000 equal terms: a float16 sum would stop at 2,048."""
    y = softmax(mx.zeros((1, 5000), dtype))
    assert y.dtype == dtype
    assert np.allclose(np.array(y.astype(mx.float32)), 1 / 5000, rtol=2**-8)


@pytest.mark.usefixtures("either_exp")
@pytest.mark.parametrize("x", SCORES.values(), ids=SCORES.keys())
def test_cross_entropy(x: np.ndarray):
    x = x.astype(np.float32).astype(np.float64)
    targets = np.where(np.isfinite(x), np.arange(x.shape[-1]), -1).max(-1)  # the last one that is possible
    logits, ids = mx.array(x.astype(np.float32)), mx.array(targets)
    top = x.max(-1)
    expected = top + np.log(np.exp(x - top[..., None]).sum(-1)) - np.take_along_axis(x, targets[..., None], -1)[..., 0]
    nats = cross_entropy(logits, ids)
    assert np.allclose(np.array(nats), expected, rtol=1e-5, atol=1e-5)

    cotangent = np.random.default_rng(4).normal(size=targets.shape)
    gradient = mx.grad(lambda x: (cross_entropy(x, ids) * mx.array(cotangent.astype(np.float32))).sum())(logits)
    onehot = targets[..., None] == np.arange(x.shape[-1])
    assert np.allclose(np.array(gradient), (numpy_softmax(x) - onehot) * cotangent[..., None], atol=1e-5)


@pytest.mark.usefixtures("either_exp")
def test_cross_entropy_of_nan_is_nan():
    nats = cross_entropy(mx.array([[1.0, np.nan, 2.0], [1.0, 2.0, 3.0]]), mx.array([0, 0]))
    assert np.isnan(np.array(nats)).tolist() == [True, False]


@pytest.mark.usefixtures("either_exp")
def test_cross_entropy_of_the_impossible_is_infinite():
    assert cross_entropy(mx.array([[1.0, -np.inf]]), mx.array([1])).item() == math.inf
