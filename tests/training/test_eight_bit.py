"""AdamW with its moments in few bits: against NumPy, what rounding may and may not do, and what it saves."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training import adamw, moments
from tinytale_mlx.training.adamw import AdamW, LowBitAdamW
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.schedules import learning_rate
from tinytale_mlx.training.step import Step

FORMS: list[moments.Form] = ["bfloat16", "int8"]


# ---------------------------------------------------------------------- the codes, one line after the other
def dither(shape: tuple[int, ...], first: int, step: int) -> np.ndarray:
    block, place = np.arange(first, first + shape[0])[:, None], np.arange(shape[1])
    return (step * 2654435769 + block * 3242174889 + place * 2447445413) % 2**32 // 2**16 / 2**16


def rounded(array: np.ndarray, form: str, signed: bool, step: int) -> np.ndarray:
    """What is left of an array when it was kept after that step."""
    blocks = np.zeros((-(-array.size // 256), 256), np.float32)
    blocks.flat[: array.size] = array.astype(np.float32).flat
    up = dither(blocks.shape, 0, step)
    if form == "bfloat16":
        bits = blocks.view(np.uint32).astype(np.int64) + (up * 2**16).astype(np.int64)
        kept = (bits // 2**16 * 2**16).astype(np.uint32).view(np.float32)
    else:
        levels, power = (127, 2) if signed else (255, 4)
        top = np.abs(blocks).max(axis=1, keepdims=True)
        code = np.floor(levels * (np.abs(blocks) / top) ** (1 / power))
        low, high = (code / levels) ** power, ((code + 1) / levels) ** power
        code += np.floor((np.abs(blocks) / top - low) / (high - low) + up)
        kept = np.sign(blocks) * top * (code if signed else np.maximum(code, 1)) ** power / levels**power
    return kept.flat[: array.size].reshape(array.shape)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(8, 64), (5, 77)], ids=str)
def test_against_numpy(form: moments.Form, shape: tuple[int, int], dice: np.random.Generator):
    optimizer = LowBitAdamW(1.0, (0.9, 0.95), 1e-8, 0.1, form)
    p = dice.normal(size=shape).astype(np.float32)
    parameters, m, v = {"w": mx.array(p)}, np.zeros(shape), np.zeros(shape)
    for t in range(1, 6):
        g = dice.normal(size=shape).astype(np.float32) * 10.0 ** dice.integers(-3, 2)
        optimizer.learning_rate = 0.01 * t
        parameters = optimizer.apply_gradients({"w": mx.array(g)}, parameters)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        p = p - 0.01 * t * (step + 0.1 * p)
        wrong = np.abs(np.array(parameters["w"]) - p)
        assert np.quantile(wrong, 0.99) < 1e-5, t  # now and then, the last bit of a float decides on a code
        assert wrong.max() < 1e-2 * 0.01 * t * np.abs(step).max(), t
        m, v, p = rounded(m, form, True, t), rounded(v, form, False, t), np.array(parameters["w"], np.float64)
        state = {name: moments.restore(optimizer.state["w"][name]) for name in "mv"}
        for name, ours in (("m", m), ("v", v)):
            theirs = np.array(moments.unblocked(state[name], shape))
            assert np.quantile(np.abs(theirs - ours), 0.99) < 1e-5 * np.abs(ours).max(), (t, name)
        m, v = (np.array(moments.unblocked(state[name], shape), np.float64) for name in "mv")


# ---------------------------------------------------------------------- rounding
def kept(blocks: np.ndarray, form: moments.Form, signed: bool, step: int) -> np.ndarray:
    return np.array(moments.restore(moments.keep(mx.array(blocks), form, signed, mx.array(step, mx.uint64))))


@pytest.fixture
def wide(dice: np.random.Generator) -> np.ndarray:
    """Numbers of many sizes: five decades in every block."""
    return (10 ** dice.uniform(-5, 0, size=(4, 256)) * dice.choice([-1, 1], (4, 256))).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("signed", [True, False])
def test_the_error_is_less_than_one_step_of_the_code(form: moments.Form, signed: bool, wide: np.ndarray):
    array = wide if signed else wide**2
    top = np.abs(array).max(axis=1, keepdims=True)
    near = {
        ("bfloat16", True): np.abs(array) / 128,
        ("bfloat16", False): np.abs(array) / 128,
        ("int8", True): top * (((np.abs(array) / top) ** 0.5 + 1 / 127) ** 2) - np.abs(array),
        ("int8", False): top * (((np.abs(array) / top) ** 0.25 + 1 / 255) ** 4) - np.abs(array),
    }[form, signed]
    for step in range(5):
        assert (np.abs(kept(array, form, signed, step) - array) <= near * 1.0001).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("signed", [True, False])
def test_what_is_exact_stays(form: moments.Form, signed: bool):
    """Zero, and the largest of each block; so a block of equals is kept as it is."""
    for array in (np.zeros((2, 256)), np.full((1, 256), 0.5), 2.0 ** np.arange(3)[:, None] * np.ones(256)):
        assert np.array_equal(kept(array.astype(np.float32), form, signed, 3), array)


@pytest.mark.parametrize("form", FORMS)
def test_on_average_nothing_is_added_or_lost(form: moments.Form, wide: np.ndarray):
    mean = np.mean([kept(wide, form, True, step) for step in range(400)], axis=0)
    large = np.abs(wide) > 1e-3
    assert np.abs(mean / wide - 1)[large].max() < 0.02
    assert np.abs(np.mean(mean / wide - 1)) < 0.005


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("signed", [True, False])
def test_slow_changes_are_not_lost(form: moments.Form, signed: bool):
    """By a thousandth per step, which no code can tell; beside numbers that stay, so that scales are no help."""
    blocks = np.ones((1, 256), np.float32)
    blocks[0, 1:] = np.linspace(0.2, 0.9, 255)
    array, factor = mx.array(blocks), mx.array(np.where(np.arange(256) > 0, 0.999, 1.0).astype(np.float32))
    for step in range(1000):
        array = moments.restore(moments.keep(array * factor, form, signed, mx.array(step, mx.uint64)))
    left = np.array(array)[0, 1:] / blocks[0, 1:]
    assert left.mean() == pytest.approx(0.999**1000, rel=0.05)
    assert left.max() < 0.55


def test_the_second_moment_is_never_rounded_to_zero():
    """Where it is, Adam divides by nothing but eps: a step as long as a thousand others."""
    array = np.full((1, 256), 1e-12, np.float32)
    array[0, 0] = 1.0
    for step in range(20):
        assert kept(array, "int8", False, step).min() > 0
    optimizer = LowBitAdamW(1.0, (0.9, 0.95), 1e-8, 0.0, "int8")
    gradient = np.full((1, 256), 1e-5, np.float32)
    gradient[0, 0] = 1.0
    zeros = {"w": mx.zeros((1, 256))}
    for size in (1.0, 0.0, 0.0):
        step = optimizer.apply_gradients({"w": mx.array(size * gradient)}, zeros)
        assert np.abs(np.array(step["w"])).max() < 10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(form: moments.Form, bad: float):
    array = np.ones((2, 256), np.float32)
    array[1, 7] = bad
    back = kept(array, form, True, 1)
    assert np.isfinite(back[0]).all()
    assert not np.isfinite(back[1]).all()


# ---------------------------------------------------------------------- what is kept
def test_vectors_are_kept_in_full(tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny())
    optimizer = make_optimizer(TrainRecipe(optimizer_state="int8"))
    optimizer.init(model.trainable_parameters())
    state = dict(tree_flatten(optimizer.state))
    for name, array in tree_flatten(model.trainable_parameters()):
        if array.ndim == 1:
            assert state[f"{name}.m"].dtype == mx.float32
        else:
            assert (state[f"{name}.m.codes"].dtype, state[f"{name}.v.codes"].dtype) == (mx.int8, mx.uint8)
            assert state[f"{name}.m.scales"].shape == (-(-array.size // 256), 1)


def test_muon_leaves_its_own_momentum_in_full(tiny: Callable[..., ModelConfig]):
    optimizer = make_optimizer(TrainRecipe(optimizer="muon", optimizer_state="int8"))
    optimizer.init(Transformer(tiny()).trainable_parameters())
    state = {name: array.dtype for name, array in tree_flatten(optimizer.state)}
    assert state["states.0.model.layers.0.mlp.up_proj.weight.momentum"] == mx.float32
    assert state["states.1.model.embed_tokens.weight.v.codes"] == mx.uint8


@pytest.mark.parametrize("form", FORMS)
def test_pieces_change_nothing(form: moments.Form, dice: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    draw = lambda: mx.array(dice.normal(size=(9, 200)).astype(np.float32))  # noqa: E731  (7.03 blocks)
    start, gradients = draw(), [draw() for _ in range(3)]
    ends = []
    for piece in (2**12, 3, 1):
        monkeypatch.setattr(adamw, "PIECE", piece)
        optimizer, parameters = LowBitAdamW(0.01, (0.9, 0.95), 1e-8, 0.1, form), {"w": start}
        for gradient in gradients:
            parameters = optimizer.apply_gradients({"w": gradient}, parameters)
        ends.append({name: np.array(a.astype(mx.float32)) for name, a in tree_flatten([parameters, optimizer.state])})
    for end in ends[1:]:
        assert all(np.array_equal(end[name], array) for name, array in ends[0].items())


def test_the_update_takes_less_memory_than_in_float32(dice: np.random.Generator):
    """Not only what is kept, but at the worst moment too: it works piece by piece."""
    peaks = {}
    for name, make in {
        "float32": lambda: AdamW(0.01, (0.9, 0.95), 1e-8, 0.1),
        "bfloat16": lambda: LowBitAdamW(0.01, (0.9, 0.95), 1e-8, 0.1, "bfloat16"),
        "int8": lambda: LowBitAdamW(0.01, (0.9, 0.95), 1e-8, 0.1, "int8"),
    }.items():
        optimizer, parameters = make(), {f"{i}": mx.ones((4096, 1024)) for i in range(2)}
        gradients = {name: array * 0.1 for name, array in parameters.items()}
        optimizer.init(parameters)
        mx.eval(parameters, gradients, optimizer.state)
        mx.clear_cache()
        before, _ = mx.get_active_memory(), mx.reset_peak_memory()
        kept_bytes = sum(array.nbytes for _, array in tree_flatten([parameters, optimizer.state]))
        parameters = optimizer.apply_gradients(gradients, parameters)
        mx.eval(parameters, optimizer.state)
        peaks[name] = kept_bytes + mx.get_peak_memory() - before
        del optimizer, parameters, gradients
    assert peaks["int8"] < peaks["bfloat16"] < peaks["float32"]


# ---------------------------------------------------------------------- training
def test_the_loss_after_200_steps(tiny: Callable[..., ModelConfig]):
    """Within 0.01 of what float32 reaches."""
    losses = {}
    for state in ("float32", *FORMS):
        train = TrainRecipe(steps=200, batch_size=4, learning_rate=1e-3, warmup_steps=10, optimizer_state=state)
        losses[state] = final_loss(tiny(), train)
    assert losses["float32"] < 2.6  # of ln 40 = 3.7
    for form in FORMS:
        assert losses[form] == pytest.approx(losses["float32"], abs=0.01)


def final_loss(config: ModelConfig, train: TrainRecipe) -> float:
    """The mean over the last 20 steps, on a text in which seven tokens of ten follow from the one before."""
    noise = np.random.default_rng(0)
    text = np.zeros(20_000, np.uint16)
    for i in range(1, len(text)):
        text[i] = noise.integers(40) if noise.random() < 0.3 else (3 * text[i - 1] + 7) % 40
    windows = np.lib.stride_tricks.sliding_window_view(text.astype(np.int32), config.context + 1)
    weights = np.ones((train.batch_size, config.context), np.float32)
    step = Step(Transformer(config, seed=0), make_optimizer(train), train.max_grad_norm)
    losses = []
    for number in range(train.steps):
        rows = windows[noise.integers(len(windows), size=train.batch_size)]
        result = step([(rows, weights)], learning_rate(number, train), mx.random.key(number))
        losses.append(result.nats / result.tokens)
    return float(np.mean(losses[-20:]))
