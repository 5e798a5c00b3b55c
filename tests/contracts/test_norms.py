"""Every norm against NumPy: values, gradients, and 16-bit input computed in 32 bits."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tinytale_mlx.models.norms import make_norm
from tinytale_mlx.recipe import ModelConfig

DIMS = 12
KINDS: dict[str, dict[str, Any]] = {
    "rmsnorm": {"norm": "rmsnorm"},
    "rmsnorm-plain": {"norm": "rmsnorm", "norm_weight": False},
    "rmsnorm-eps": {"norm": "rmsnorm", "norm_eps": 0.5},
    "layernorm": {"norm": "layernorm"},
    "layernorm-no-bias": {"norm": "layernorm", "norm_bias": False},
    "layernorm-plain": {"norm": "layernorm", "norm_weight": False},
    "layernorm-eps": {"norm": "layernorm", "norm_eps": 0.5},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def config(request: pytest.FixtureRequest, tiny: Callable[..., ModelConfig]) -> ModelConfig:
    return tiny(**request.param)


@pytest.fixture
def norm(config: ModelConfig, dice: np.random.Generator) -> nn.Module:
    """With drawn parameters."""
    module = make_norm(config, DIMS)
    parameters = tree_flatten(module.parameters())
    drawn = [(name, mx.array(dice.normal(size=a.shape).astype(np.float32))) for name, a in parameters]
    module.update(tree_unflatten(drawn) if drawn else {})
    return module


def reference(x: np.ndarray, p: dict[str, np.ndarray], config: ModelConfig) -> np.ndarray:
    if config.norm == "layernorm":
        x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * p.get("weight", 1) + p.get("bias", 0)


def parameters_of(norm: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.array(array, np.float64) for name, array in tree_flatten(norm.parameters())}


def test_parameters_are_those_of_the_recipe(norm: nn.Module, config: ModelConfig):
    expected = {"weight"} if config.norm_weight else set()
    if config.norm == "layernorm" and config.norm_weight and config.norm_bias:
        expected.add("bias")
    assert set(parameters_of(norm)) == expected


def test_a_new_norm_scales_by_one(config: ModelConfig, dice: np.random.Generator):
    x = dice.normal(3.0, size=(5, DIMS))
    y = make_norm(config, DIMS)(mx.array(x.astype(np.float32)))
    assert np.allclose(np.array(y), reference(x, {}, config), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_it_computes_what_the_reference_does(
    norm: nn.Module, config: ModelConfig, dice: np.random.Generator, scale: float
):
    x = (scale * dice.normal(0.5, size=(2, 5, DIMS))).astype(np.float32)
    expected = reference(x.astype(np.float64), parameters_of(norm), config)
    assert np.allclose(np.array(norm(mx.array(x))), expected, rtol=1e-4, atol=1e-5)


def test_gradients(norm: nn.Module, config: ModelConfig, dice: np.random.Generator):
    x, cotangent = dice.normal(size=(3, DIMS)), dice.normal(size=(3, DIMS))
    p = parameters_of(norm)

    def loss(parameters: dict, inputs: mx.array) -> mx.array:
        norm.update(parameters)
        return (norm(inputs) * mx.array(cotangent.astype(np.float32))).sum()

    inputs = mx.array(x.astype(np.float32))
    given = {"x": np.array(mx.grad(lambda inputs: loss({}, inputs))(inputs), np.float64)}
    if p:
        own = mx.grad(lambda parameters: loss(parameters, inputs))(norm.trainable_parameters())
        given |= {name: np.array(g, np.float64) for name, g in tree_flatten(own)}
    for name, value in {**p, "x": x}.items():
        for index in np.ndindex(value.shape):
            step = np.zeros_like(value)
            step[index] = 1e-5
            up, down = (
                reference(x + sign * step, p, config)
                if name == "x"
                else reference(x, {**p, name: value + sign * step}, config)
                for sign in (1, -1)
            )
            expected = ((up - down) * cotangent).sum() / 2e-5
            assert given[name][index] == pytest.approx(expected, abs=1e-4), (name, index)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_16_bit_is_computed_in_32_bits(norm: nn.Module, dtype: mx.Dtype, dice: np.random.Generator):
    """Values whose squares are beyond float16; only weight and bias, at the end, are applied in 16 bits."""
    x = mx.array(dice.normal(100.0, 400.0, size=(4, DIMS)).astype(np.float32)).astype(dtype)
    norm.set_dtype(dtype)
    y = norm(x)
    assert y.dtype == dtype
    norm.set_dtype(mx.float32)
    expected = np.array(norm(x.astype(mx.float32)))
    rounding = 2**-9 if dtype == mx.bfloat16 else 2**-12
    assert np.allclose(np.array(y.astype(mx.float32)), expected, atol=3 * rounding * np.abs(expected).max())
