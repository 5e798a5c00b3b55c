"""Every feed-forward network against NumPy: values, gradients, widths, and 16-bit input."""

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tinytale_mlx.models.feedforward import ACTIVATIONS, make_feedforward
from tinytale_mlx.recipe import ModelConfig

_erf = np.vectorize(math.erf)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * _sigmoid(x),
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
}


@pytest.fixture(params=["swiglu", *REFERENCES])
def activation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "bias"])
def network(
    request: pytest.FixtureRequest,
    activation: str,
    tiny: Callable[..., ModelConfig],
    dice: np.random.Generator,
) -> nn.Module:
    module = make_feedforward(tiny(activation=activation, mlp_bias=request.param))
    drawn = [
        (name, mx.array((0.4 * dice.normal(size=array.shape)).astype(np.float32)))
        for name, array in tree_flatten(module.parameters())
    ]
    module.update(tree_unflatten(drawn))
    return module


def parameters_of(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.array(array, np.float64) for name, array in tree_flatten(network.parameters())}


def reference(x: np.ndarray, p: dict[str, np.ndarray], activation: str) -> np.ndarray:
    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ p[f"{name}_proj.weight"].T + p.get(f"{name}_proj.bias", 0.0)

    if activation == "swiglu":
        return linear("down", REFERENCES["silu"](linear("gate", x)) * linear("up", x))
    return linear("down", REFERENCES[activation](linear("up", x)))


def test_every_activation_has_a_reference():
    assert set(ACTIVATIONS) == set(REFERENCES)


@pytest.mark.usefixtures("either_exp")
def test_it_computes_what_the_reference_does(network: nn.Module, activation: str, dice: np.random.Generator):
    x = dice.normal(size=(2, 5, 32)).astype(np.float32)
    expected = reference(x.astype(np.float64), parameters_of(network), activation)
    assert np.allclose(np.array(network(mx.array(x))), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("either_exp")
def test_a_token_is_treated_by_itself(network: nn.Module, dice: np.random.Generator):
    x = dice.normal(size=(2, 5, 32)).astype(np.float32)
    alone = np.array(network(mx.array(x[1:, 3:4])))
    assert np.allclose(np.array(network(mx.array(x)))[1:, 3:4], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("either_exp")
def test_gradients(network: nn.Module, activation: str, dice: np.random.Generator):
    x, cotangent = dice.normal(size=(3, 32)), dice.normal(size=(3, 32))
    p = parameters_of(network)

    def loss(parameters: dict, inputs: mx.array) -> mx.array:
        network.update(parameters)
        return (network(inputs) * mx.array(cotangent.astype(np.float32))).sum()

    gradients, x_gradient = mx.grad(loss, (0, 1))(network.trainable_parameters(), mx.array(x.astype(np.float32)))
    given = {name: np.array(array, np.float64) for name, array in tree_flatten(gradients)}
    given["x"] = np.array(x_gradient, np.float64)
    for name, gradient in given.items():
        direction = dice.normal(size=gradient.shape)
        h = 1e-7  # so small that no ReLU crosses its corner

        def moved(step: float, name: str = name, direction: np.ndarray = direction) -> float:
            if name == "x":
                return float((reference(x + step * direction, p, activation) * cotangent).sum())
            changed = {**p, name: p[name] + step * direction}
            return float((reference(x, changed, activation) * cotangent).sum())

        expected = (moved(h) - moved(-h)) / (2 * h)
        tolerance = 1e-4 * np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert (gradient * direction).sum() == pytest.approx(expected, abs=tolerance), name


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.usefixtures("either_exp")
def test_16_bit(network: nn.Module, activation: str, dtype: mx.Dtype, dice: np.random.Generator):
    x = mx.array(dice.normal(size=(2, 32)).astype(np.float32)).astype(dtype)
    network.set_dtype(dtype)
    y = network(x)
    assert y.dtype == dtype
    network.set_dtype(mx.float32)
    expected = np.array(network(x.astype(mx.float32)))
    assert np.allclose(np.array(y.astype(mx.float32)), expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "relu"])
@pytest.mark.usefixtures("either_exp")
def test_large_16_bit_values_pass_through(name: str, dtype: mx.Dtype):
    """Intermediate results of an activation do not overflow where its value would not."""
    x = mx.array([-3e4, -2000.0, -300.0, 0.0, 300.0, 2000.0, 3e4]).astype(dtype)
    y = np.array(ACTIVATIONS[name](x).astype(mx.float32))
    assert np.allclose(y, np.maximum(np.array(x.astype(mx.float32)), 0))
