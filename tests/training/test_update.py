"""The update in place: what the optimiser does to the whole model at once, in the memory that is there anyway."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_unflatten

from tinytale_mlx.models import Transformer
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training import stacks
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.update import Update, clip_factor, global_norm

Arrays = dict[str, np.ndarray]
RECIPES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "bfloat16": {"optimizer_state": "bfloat16"},
    "int8": {"optimizer_state": "int8"},
    "muon": {"optimizer": "muon"},
    "muon-int8": {"optimizer": "muon", "optimizer_state": "int8"},
    "adafactor": {"optimizer": "adafactor"},
    "lion": {"optimizer": "lion"},
    "adam_mini": {"optimizer": "adam_mini"},
}


def draw(model: Transformer, dice: np.random.Generator) -> dict[str, mx.array]:
    return {
        name: mx.array(dice.normal(size=array.shape).astype(np.float32))
        for name, array in named_arrays(model.trainable_parameters())
    }


def numbers(tree: Any) -> Arrays:
    return {name: np.array(array.astype(mx.float32)) for name, array in named_arrays(tree)}


# ---------------------------------------------------------------------- what it does
@pytest.mark.parametrize("most", [1, 10_000, 2**20])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_as_the_optimizer_does_it(
    recipe: dict[str, Any],
    most: int,
    tiny: Callable[..., ModelConfig],
    dice: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
):
    """Weights and state after three updates are those of `optimizer.update`, however small the stacks are."""
    monkeypatch.setattr(stacks, "STACK", most)
    whole, ours = (Transformer(tiny(attention_bias=True), seed=1) for _ in range(2))
    optimizers = [make_optimizer(TrainRecipe(**recipe)) for _ in range(2)]
    for model, optimizer in zip((whole, ours), optimizers, strict=True):
        optimizer.init(model.trainable_parameters())
    update = Update(ours, optimizers[1])
    for rate in (1e-2, 2e-2, 5e-3):
        gradients = draw(whole, dice)
        optimizers[0].learning_rate = mx.array(rate)
        optimizers[0].update(whole, tree_unflatten([(name, 0.5 * g) for name, g in gradients.items()]))
        update(gradients, 0.5, rate)
        assert gradients == {}
    for one, other in ((whole.parameters(), ours.parameters()), (optimizers[0].state, optimizers[1].state)):
        expected, found = numbers(one), numbers(other)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            steps_apart = 1 if recipe.get("optimizer_state") == "int8" and name.endswith("codes") else 0
            assert np.allclose(found[name], array, rtol=2e-4, atol=2e-5 + steps_apart), name


def test_any_optimizer_of_mlx(tiny: Callable[..., ModelConfig], dice: np.random.Generator):
    model = Transformer(tiny(), seed=1)
    before, gradients = numbers(model.parameters()), draw(model, dice)
    directions = numbers(gradients)
    optimizer = optim.SGD(learning_rate=1.0, momentum=0.9)
    optimizer.init(model.trainable_parameters())
    Update(model, optimizer)(gradients, 0.25, 0.5)
    assert int(optimizer.step) == 1
    for name, after in numbers(model.parameters()).items():
        assert np.allclose(after, before[name] - 0.125 * directions[name], atol=1e-6), name


# ---------------------------------------------------------------------- memory
@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_it_takes_no_memory_of_its_own(optimizer: Any, dice: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    """Beyond what a stack or two need: in one go, new weights and moments would stand beside the old ones."""
    monkeypatch.setattr(stacks, "STACK", 2**14)
    model = Transformer(ModelConfig(hidden_size=128, layers=8, heads=2, intermediate_size=256, context=8, vocab_size=8))
    made = make_optimizer(TrainRecipe(optimizer=optimizer))
    made.init(model.trainable_parameters())
    update = Update(model, made)
    update(draw(model, dice), 1.0, 1e-3)
    gradients = draw(model, dice)
    mx.eval(gradients, model.parameters(), made.state)
    weights = sum(array.nbytes for array in gradients.values())
    mx.clear_cache()
    before, _ = mx.get_active_memory(), mx.reset_peak_memory()
    update(gradients, 1.0, 1e-3)
    assert mx.get_active_memory() - before < -0.99 * weights  # the gradients have gone
    assert mx.get_peak_memory() - before < 0.35 * weights


# ---------------------------------------------------------------------- the norm and clipping
@pytest.fixture
def gradients(dice: np.random.Generator) -> Arrays:
    shapes = {"matrix": (4, 6), "vector": (5,), "table": (3, 2)}
    return {name: dice.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def to_mlx(arrays: Arrays) -> dict[str, mx.array]:
    return {name: mx.array(array) for name, array in arrays.items()}


def norm_of(arrays: Arrays) -> float:
    return float(np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays.values())))


def test_the_global_norm(gradients: Arrays):
    assert global_norm(to_mlx(gradients)).item() == pytest.approx(norm_of(gradients), rel=1e-6)
    assert global_norm({"a": mx.zeros((3,))}).item() == 0


def test_the_norm_of_16_bit_gradients_is_taken_in_32(gradients: Arrays):
    half = {name: mx.array(300 * array).astype(mx.float16) for name, array in gradients.items()}
    expected = norm_of({name: np.array(array) for name, array in half.items()})
    assert global_norm(half).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(gradients: Arrays, bad: float):
    gradients["vector"][2] = bad
    assert not np.isfinite(global_norm(to_mlx(gradients)).item())


@pytest.mark.parametrize("share", [0.1, 0.99, 1.01, 100.0])
def test_clipping(share: float):
    """Longer ones are cut to the limit, shorter ones untouched."""
    assert clip_factor(7.0, 7.0 * share) == pytest.approx(min(share, 1.0), rel=1e-5)
    assert clip_factor(0.0, share) == 1
    assert clip_factor(1e30, None) == 1
