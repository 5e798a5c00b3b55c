"""AdamW and Muon against NumPy, who moves which parameter, and clipping."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training.optimizers import (
    AdamW,
    Muon,
    clip_by_global_norm,
    global_norm,
    make_optimizer,
    orthogonalize,
)

Arrays = dict[str, np.ndarray]
SHAPES = {"matrix": (4, 6), "vector": (5,), "table": (3, 2)}


def draw(dice: np.random.Generator) -> Arrays:
    return {name: dice.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def to_mlx(arrays: Arrays) -> dict[str, mx.array]:
    return {name: mx.array(array) for name, array in arrays.items()}


# ---------------------------------------------------------------------- AdamW
def adamw_reference(
    start: Arrays,
    gradients: list[Arrays],
    rates: list[float],
    betas: tuple[float, float],
    eps: float,
    decay: float,
) -> Arrays:
    """Loshchilov & Hutter 2019, algorithm 2, one line after the other; decay on matrices only."""
    beta1, beta2 = betas
    result = {}
    for name, parameter in start.items():
        p = parameter.astype(np.float64)
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
            g = gradient[name].astype(np.float64)
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
            p = p - rate * (m_hat / (np.sqrt(v_hat) + eps) + (decay * p if p.ndim >= 2 else 0))
        result[name] = p
    return result


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_adamw(decay: float, eps: float, dice: np.random.Generator):
    start, gradients = draw(dice), [draw(dice) for _ in range(5)]
    rates = [1e-2, 2e-2, 3e-2, 2e-2, 1e-2]
    optimizer = AdamW(1.0, (0.9, 0.95), eps, decay)
    parameters = to_mlx(start)
    optimizer.init(parameters)
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        parameters = optimizer.apply_gradients(to_mlx(gradient), parameters)
    expected = adamw_reference(start, gradients, rates, (0.9, 0.95), eps, decay)
    for name, value in expected.items():
        assert np.allclose(np.array(parameters[name]), value, rtol=1e-5, atol=1e-6), name


def test_the_first_step_of_adam_is_the_learning_rate(dice: np.random.Generator):
    """That is what bias correction is for: without it, it would be 3 times as long."""
    optimizer = AdamW(0.01, (0.9, 0.99), 1e-8, 0.0)
    start, gradient = draw(dice), draw(dice)
    moved = optimizer.apply_gradients(to_mlx(gradient), to_mlx(start))
    for name in SHAPES:
        assert np.allclose(np.array(moved[name]) - start[name], -0.01 * np.sign(gradient[name]), atol=1e-5)


def test_decay_shrinks_matrices_and_nothing_else(dice: np.random.Generator):
    optimizer = AdamW(0.1, (0.9, 0.95), 1e-8, 0.5)
    start = draw(dice)
    nothing = {name: np.zeros_like(array) for name, array in start.items()}
    moved = optimizer.apply_gradients(to_mlx(nothing), to_mlx(start))
    for name, array in start.items():
        factor = 0.95 if array.ndim == 2 else 1.0
        assert np.allclose(np.array(moved[name]), factor * array, rtol=1e-6)


# ---------------------------------------------------------------------- Muon
def newton_schulz_reference(matrix: np.ndarray) -> np.ndarray:
    """Jordan et al. 2024: the quintic acts on each singular value by itself."""
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ vt


@pytest.mark.parametrize("shape", [(24, 48), (48, 24), (16, 17), (1, 8), (8, 1)])
def test_an_orthogonal_step(shape: tuple[int, int], dice: np.random.Generator):
    matrix = dice.normal(size=shape).astype(np.float32)
    step = np.array(orthogonalize(mx.array(matrix)), np.float64)
    assert np.allclose(step, newton_schulz_reference(matrix), atol=2e-4)
    singular = np.linalg.svd(step, compute_uv=False)
    if min(shape) < 0.6 * max(shape):  # a nearly square one has singular values too close to zero
        assert singular.min() > 0.6
    assert singular.max() < 1.3


def test_an_orthogonal_step_does_not_depend_on_the_scale(dice: np.random.Generator):
    matrix = dice.normal(size=(8, 16)).astype(np.float32)
    steps = [np.array(orthogonalize(mx.array(scale * matrix))) for scale in (1e-3, 1.0, 1e6)]
    assert np.allclose(steps[0], steps[1], atol=2e-3)
    assert np.allclose(steps[2], steps[1], atol=1e-4)
    assert (np.array(orthogonalize(mx.zeros((4, 8)))) == 0).all()


def test_muon(dice: np.random.Generator):
    start = dice.normal(size=(8, 16)).astype(np.float32)
    gradients = [dice.normal(size=(8, 16)).astype(np.float32) for _ in range(4)]
    optimizer, parameters = Muon(0.02, momentum=0.95, weight_decay=0.1), {"w": mx.array(start)}
    p, momentum = start.astype(np.float64), np.zeros((8, 16))
    for gradient in gradients:
        parameters = optimizer.apply_gradients({"w": mx.array(gradient)}, parameters)
        momentum = 0.95 * momentum + gradient
        step = newton_schulz_reference(gradient + 0.95 * momentum)
        p = (1 - 0.02 * 0.1) * p - 0.02 * 0.2 * np.sqrt(16) * step
    assert np.allclose(np.array(parameters["w"]), p, atol=1e-5)


def test_a_muon_step_is_as_long_as_an_adam_step(dice: np.random.Generator):
    """The root mean square of an element's move is about 0.2 learning rates, for matrices of any shape."""
    for shape in [(32, 32), (16, 64), (64, 16)]:
        matrix = {"w": mx.zeros(shape)}
        gradient = {"w": mx.array(dice.normal(size=shape).astype(np.float32))}
        moved = Muon(1.0, momentum=0.95, weight_decay=0.0).apply_gradients(gradient, matrix)
        assert np.sqrt(np.square(np.array(moved["w"])).mean()) == pytest.approx(0.2, rel=0.25)


# ---------------------------------------------------------------------- who moves what
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": {"attention_bias": True, "mlp_bias": True, "norm": "layernorm", "positions": "learned"},
    "untied": {"tie_embeddings": False, "qk_norm": True, "kv_heads": 2},
    "t5": {"positions": "t5"},
    "post-norm": {"norm_placement": "post", "distinct_layers": 1},
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS.keys())
def test_every_parameter_has_exactly_one_optimizer(changes: dict[str, Any], tiny: Callable[..., ModelConfig]):
    parameters = Transformer(tiny(**changes)).trainable_parameters()
    optimizer = make_optimizer(TrainRecipe(optimizer="muon"))
    muon, adamw = optimizer._split_dictionary(parameters)  # type: ignore[attr-defined]
    by_muon = {name for name, _ in tree_flatten(muon)}
    by_adamw = {name for name, _ in tree_flatten(adamw)}
    assert not by_muon & by_adamw
    assert by_muon | by_adamw == {name for name, _ in tree_flatten(parameters)}
    for name, array in tree_flatten(parameters):
        if array.ndim == 1 or "layers." not in name:
            assert name in by_adamw
        elif name.endswith("proj.weight"):
            assert name in by_muon


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_learning_rate_reaches_every_parameter(name: str, tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny())
    optimizer = make_optimizer(TrainRecipe(optimizer=name, weight_decay=0.1))
    optimizer.learning_rate = 0.0
    before = {n: np.array(a) for n, a in tree_flatten(model.trainable_parameters())}
    optimizer.update(model, tree_map(mx.ones_like, model.trainable_parameters()))
    for n, a in tree_flatten(model.trainable_parameters()):
        assert np.array_equal(np.array(a), before[n]), n


# ---------------------------------------------------------------------- clipping
@pytest.fixture
def gradients(dice: np.random.Generator) -> Arrays:
    return draw(dice)


def norm_of(arrays: Arrays) -> float:
    return float(np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays.values())))


def test_the_global_norm(gradients: Arrays):
    assert global_norm(to_mlx(gradients)).item() == pytest.approx(norm_of(gradients), rel=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.99, 1.01, 100.0])
def test_clipping(gradients: Arrays, share: float):
    """Longer ones are cut to the limit, shorter ones untouched; the norm told is the one before."""
    limit = share * norm_of(gradients)
    clipped, norm = clip_by_global_norm(to_mlx(gradients), limit)
    assert norm.item() == pytest.approx(norm_of(gradients), rel=1e-6)
    for name, gradient in gradients.items():
        assert np.allclose(np.array(clipped[name]), min(share, 1.0) * gradient, rtol=1e-5)


def test_no_limit_no_clipping(gradients: Arrays):
    clipped, norm = clip_by_global_norm(to_mlx({n: 1e6 * g for n, g in gradients.items()}), None)
    assert norm.item() == pytest.approx(1e6 * norm_of(gradients), rel=1e-6)
    assert np.array_equal(np.array(clipped["matrix"]), (1e6 * gradients["matrix"]).astype(np.float32))


def test_zero_gradients_stay_zero():
    clipped, norm = clip_by_global_norm({"a": mx.zeros((3,))}, 1.0)
    assert norm.item() == 0
    assert np.array(clipped["a"]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("limit", [1.0, None])
def test_what_is_not_finite_is_not_hidden(gradients: Arrays, bad: float, limit: float | None):
    gradients["vector"][2] = bad
    _, norm = clip_by_global_norm(to_mlx(gradients), limit)
    assert not np.isfinite(norm.item())


def test_the_norm_of_16_bit_gradients_is_taken_in_32(gradients: Arrays):
    half = {name: mx.array(300 * array).astype(mx.float16) for name, array in gradients.items()}
    expected = norm_of({name: np.array(array) for name, array in half.items()})
    clipped, norm = clip_by_global_norm(half, 1.0)
    assert norm.item() == pytest.approx(expected, rel=1e-5)
    assert clipped["matrix"].dtype == mx.float16
