"""Every optimiser against NumPy."""

from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from tinytale_mlx.training import muon, stacks
from tinytale_mlx.training.adafactor import Adafactor
from tinytale_mlx.training.adam_mini import AdamMini
from tinytale_mlx.training.adamw import AdamW
from tinytale_mlx.training.lion import Lion
from tinytale_mlx.training.muon import Muon, orthogonalize, orthogonalize_all

Arrays = dict[str, np.ndarray]
SHAPES = {"matrix": (4, 6), "vector": (5,), "table": (3, 2)}


def draw(dice: np.random.Generator) -> Arrays:
    return {name: dice.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def to_mlx(arrays: Arrays) -> dict[str, mx.array]:
    return {name: mx.array(array) for name, array in arrays.items()}


# ---------------------------------------------------------------------- the algorithms, one line after the other
Direction = Callable[[int, np.ndarray, dict], np.ndarray]
"""(t = 1, 2, ..., gradient, state) -> what the rate times is subtracted."""


def adamw(t: int, g: np.ndarray, state: dict) -> np.ndarray:
    """Loshchilov & Hutter 2019, algorithm 2."""
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.95 * state.get("v", 0) + 0.05 * g**2
    return state["m"] / (1 - 0.9**t) / (np.sqrt(state["v"] / (1 - 0.95**t)) + 1e-2)


def adam_mini(t: int, g: np.ndarray, state: dict) -> np.ndarray:
    """Zhang et al. 2024, algorithm 2, with rows for blocks."""
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.95 * state.get("v", 0) + 0.05 * np.mean(g**2, axis=-1, keepdims=True)
    return state["m"] / (1 - 0.9**t) / (np.sqrt(state["v"] / (1 - 0.95**t)) + 1e-2)


def lion(t: int, g: np.ndarray, state: dict) -> np.ndarray:
    """Chen et al. 2023, algorithm 2."""
    m = state.get("m", 0)
    state["m"] = 0.95 * m + 0.05 * g
    return np.sign(0.9 * m + 0.1 * g)


def adafactor(t: int, g: np.ndarray, state: dict) -> np.ndarray:
    """Shazeer & Stern 2018, algorithms 4 and 5, without the relative step."""
    beta = 1 - t**-0.8
    squares = g**2 + 1e-30
    if g.ndim == 1:
        v = state["v"] = beta * state.get("v", 0) + (1 - beta) * squares
    else:
        state["R"] = beta * state.get("R", 0) + (1 - beta) * squares.sum(axis=1)
        state["C"] = beta * state.get("C", 0) + (1 - beta) * squares.sum(axis=0)
        v = np.outer(state["R"], state["C"]) / state["R"].sum()
    u = g / np.sqrt(v)
    return u / max(1, np.sqrt(np.mean(u**2)))


def muon_by_svd(t: int, g: np.ndarray, state: dict) -> np.ndarray:
    """Jordan et al. 2024 with Nesterov momentum, and the scale of Liu et al. 2025."""
    state["b"] = 0.95 * state.get("b", 0) + g
    return 0.2 * np.sqrt(max(g.shape)) * newton_schulz_reference(g + 0.95 * state["b"])


def follow(direction: Direction, start: Arrays, gradients: list[Arrays], rates: list[float], decay: float) -> Arrays:
    """Decay on matrices only, decoupled from the direction."""
    result = {}
    for name, parameter in start.items():
        p, state = parameter.astype(np.float64), {}
        for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
            step = direction(t, gradient[name].astype(np.float64), state)
            p = p - rate * (step + (decay * p if p.ndim >= 2 else 0))
        result[name] = p
    return result


def walk(
    optimizer: optim.Optimizer, start: Arrays, gradients: list[Arrays], rates: list[float], compiled: bool = False
) -> Arrays:
    """The parameters at the end; compiled as `Step` does it, with the rate as an array."""
    parameters = {"p": to_mlx(start)}
    optimizer.init(parameters["p"])

    def step(gradient: dict, rate: mx.array) -> None:
        optimizer.learning_rate = rate
        parameters["p"] = optimizer.apply_gradients(gradient, parameters["p"])

    state = [parameters, optimizer.state]
    run = mx.compile(step, inputs=state, outputs=state) if compiled else step
    for gradient, rate in zip(gradients, rates, strict=True):
        run(to_mlx(gradient), mx.array(rate))
        mx.eval(state)
    return {name: np.array(array) for name, array in parameters["p"].items()}


def newton_schulz_reference(matrix: np.ndarray) -> np.ndarray:
    """Jordan et al. 2024: the quintic acts on each singular value by itself."""
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ vt


BETAS = (0.9, 0.95)
ALGORITHMS: dict[str, tuple[Callable[[float], optim.Optimizer], Direction]] = {
    "adamw": (lambda decay: AdamW(1.0, BETAS, 1e-2, decay), adamw),
    "adam_mini": (lambda decay: AdamMini(1.0, BETAS, 1e-2, decay), adam_mini),
    "lion": (lambda decay: Lion(1.0, BETAS, decay), lion),
    "adafactor": (lambda decay: Adafactor(1.0, decay), adafactor),
}
RATES = [1e-2, 2e-2, 3e-2, 2e-2, 1e-2]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("make", "direction"), ALGORITHMS.values(), ids=ALGORITHMS.keys())
def test_against_numpy(
    make: Callable[[float], optim.Optimizer],
    direction: Direction,
    decay: float,
    compiled: bool,
    dice: np.random.Generator,
):
    start, gradients = draw(dice), [draw(dice) for _ in range(5)]
    gradients[3] = {name: 30 * gradient for name, gradient in gradients[3].items()}  # Adafactor clips this one
    ours = walk(make(decay), start, gradients, RATES, compiled)
    for name, value in follow(direction, start, gradients, RATES, decay).items():
        assert np.allclose(ours[name], value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_muon_against_numpy(compiled: bool, dice: np.random.Generator):
    """Three shapes, one of them on its side, and two matrices of each."""
    shapes = {
        f"{name}{i}": shape for i in range(2) for name, shape in {"a": (8, 16), "b": (16, 8), "c": (6, 6)}.items()
    }
    matrices = lambda: {name: dice.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}  # noqa: E731
    start, gradients = matrices(), [matrices() for _ in range(5)]
    ours = walk(Muon(1.0, momentum=0.95, weight_decay=0.1), start, gradients, RATES, compiled)
    for name, value in follow(muon_by_svd, start, gradients, RATES, 0.1).items():
        assert np.allclose(ours[name], value, atol=2e-5), name


def test_the_first_step_of_adam_is_the_learning_rate(dice: np.random.Generator):
    """That is what bias correction is for: without it, it would be 3 times as long."""
    start, gradient = draw(dice), draw(dice)
    moved = walk(AdamW(1.0, (0.9, 0.99), 1e-8, 0.0), start, [gradient], [0.01])
    for name in SHAPES:
        assert np.allclose(moved[name] - start[name], -0.01 * np.sign(gradient[name]), atol=1e-5)


def test_a_relative_step_is_a_share_of_the_parameter(dice: np.random.Generator):
    """With a decay of the same share; and what is zero can leave it."""
    start = {name: scale * array for scale, (name, array) in zip((5, 0.1, 0), draw(dice).items(), strict=True)}
    gradient = draw(dice)
    moved = walk(Adafactor(1.0, 0.5, relative_step=True), start, [gradient], [0.01])
    for name, array in start.items():
        rate = 0.01 * max(np.sqrt(np.mean(array.astype(np.float64) ** 2)), 1e-3)
        expected = follow(adafactor, {name: array}, [gradient], [rate], 0.5)[name]
        assert np.allclose(moved[name], expected, rtol=1e-5, atol=1e-9), name
    assert np.abs(moved["table"]).max() > 1e-6


# ---------------------------------------------------------------------- orthogonal steps
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


def test_matrices_of_a_shape_are_made_orthogonal_in_one_product(
    dice: np.random.Generator, monkeypatch: pytest.MonkeyPatch
):
    """With the result that each would have alone; of large ones, only so many at a time."""
    shapes = [(6, 8), (8, 6), (6, 8), (5, 5), (6, 8)]
    tree = {"layers": [{"w": mx.array(dice.normal(size=shape).astype(np.float32))} for shape in shapes]}
    calls: list[tuple[int, ...]] = []

    def counted(x: mx.array, *rest: int) -> mx.array:
        if not rest:  # it calls itself for what is on its side
            calls.append(x.shape)
        return orthogonalize(x, *rest)

    monkeypatch.setattr(muon, "orthogonalize", counted)
    for limit, expected in [
        (2**20, [(3, 6, 8), (1, 8, 6), (1, 5, 5)]),
        (100, [(2, 6, 8), (1, 6, 8), (1, 8, 6), (1, 5, 5)]),
    ]:
        monkeypatch.setattr(stacks, "STACK", limit)
        calls.clear()
        steps = orthogonalize_all(tree)
        assert calls == expected
        for matrix, step in zip(tree["layers"], steps["layers"], strict=True):
            assert np.allclose(np.array(step["w"]), np.array(orthogonalize(matrix["w"])), atol=1e-6)
    assert orthogonalize_all({}) == {}


def test_one_stack_is_worked_on_at_a_time(dice: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    """It shows in the memory: more is taken where nothing waits."""
    monkeypatch.setattr(stacks, "STACK", 2 * 64 * 512)
    matrices = {f"{i}": mx.array(dice.normal(size=(64, 512)).astype(np.float32)) for i in range(32)}
    peaks = []
    for depends in (mx.depends, lambda stack, done: stack):
        monkeypatch.setattr(mx, "depends", depends)
        mx.clear_cache()
        before, _ = mx.get_active_memory(), mx.reset_peak_memory()
        mx.eval(orthogonalize_all(matrices))
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[0] < 0.95 * peaks[1]


def test_a_muon_step_is_as_long_as_an_adam_step(dice: np.random.Generator):
    """The root mean square of an element's move is about 0.2 learning rates, for matrices of any shape."""
    for shape in [(32, 32), (16, 64), (64, 16)]:
        matrix = {"w": mx.zeros(shape)}
        gradient = {"w": mx.array(dice.normal(size=shape).astype(np.float32))}
        moved = Muon(1.0, momentum=0.95, weight_decay=0.0).apply_gradients(gradient, matrix)
        assert np.sqrt(np.square(np.array(moved["w"])).mean()) == pytest.approx(0.2, rel=0.25)
