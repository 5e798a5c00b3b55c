"""Averages of the weights: against sums written out, exact across a resume, in and out of a model."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training.averaging import WeightAverage, averages, first_averaged, share_of

EMA, LAST = TrainRecipe(steps=10, ema=0.9), TrainRecipe(steps=10, average_last=0.4)


@pytest.fixture
def path(dice: np.random.Generator) -> list[np.ndarray]:
    """The weights at the start, and after each of ten steps."""
    return [dice.normal(size=(3, 4)).astype(np.float32) for _ in range(11)]


def follow(path: list[np.ndarray], train: TrainRecipe) -> list[np.ndarray]:
    """The average after each step."""
    average, found = WeightAverage({"w": mx.array(path[0])}), []
    for steps, weights in enumerate(path[1:], start=1):
        average.update({"w": mx.array(weights)}, share_of(steps, train))
        found.append(np.array(average.weights["w"]))
    return found


def test_the_moving_average(path: list[np.ndarray]):
    """Of all steps so far, each weighing 0.9 times the one after it; the start is not among them."""
    for steps, average in enumerate(follow(path, EMA), start=1):
        weights = 0.9 ** np.arange(steps)[::-1]
        expected = np.tensordot(weights / weights.sum(), np.array(path[1 : steps + 1], np.float64), 1)
        assert np.allclose(average, expected, atol=1e-6), steps


def test_the_average_of_the_last_part(path: list[np.ndarray]):
    """Of the last four steps of ten; up to then there is none, and the weights are as they are."""
    assert first_averaged(LAST) == 7
    for steps, average in enumerate(follow(path, LAST), start=1):
        expected = np.mean(np.array(path[min(steps, 7) : steps + 1], np.float64), axis=0)
        assert np.allclose(average, expected, atol=1e-6), steps
        assert steps > 7 or np.array_equal(average, path[steps])


@pytest.mark.parametrize(("share", "first"), [(1.0, 1), (0.5, 51), (0.2, 81), (0.001, 100)])
def test_where_the_last_part_begins(share: float, first: int):
    train = TrainRecipe(steps=100, average_last=share)
    assert first_averaged(train) == first
    assert [share_of(steps, train) for steps in range(first, first + 3)] == [1, 1 / 2, 1 / 3]


def test_the_moving_average_begins_with_the_first_step():
    assert first_averaged(EMA) == 1
    assert share_of(1, EMA) == 1
    assert share_of(100_000, EMA) == pytest.approx(0.1)


def test_only_where_the_recipe_asks_for_it():
    assert [averages(train) for train in (TrainRecipe(), EMA, LAST)] == [False, True, True]


def test_one_average_is_enough():
    with pytest.raises(ValueError, match=r"train\.ema and train\.average_last are two ways"):
        TrainRecipe(ema=0.9, average_last=0.5)


@pytest.mark.parametrize("train", [EMA, LAST], ids=["ema", "last"])
def test_saved_and_gone_on_with_it_is_the_same(train: TrainRecipe, path: list[np.ndarray], tmp_path: Path):
    average = WeightAverage({"layers": [{"w": mx.array(path[0])}, {"w": mx.array(path[1])}]})
    tree = lambda steps: {"layers": [{"w": mx.array(path[steps])}, {"w": mx.array(-path[steps])}]}  # noqa: E731
    for steps in range(1, 9):
        average.update(tree(steps), share_of(steps, train))
    mx.save_safetensors(str(tmp_path / "a.safetensors"), dict(tree_flatten(average.weights)))
    resumed = WeightAverage(tree(0))
    resumed.weights = tree_unflatten(list(mx.load(str(tmp_path / "a.safetensors")).items()))
    for both in (average, resumed):
        for steps in (9, 10):
            both.update(tree(steps), share_of(steps, train))
    for (name, ours), (other, theirs) in zip(tree_flatten(resumed.weights), tree_flatten(average.weights), strict=True):
        assert name == other
        assert np.array_equal(np.array(ours), np.array(theirs))


def test_the_average_in_place_of_the_weights(tiny: Callable[..., ModelConfig]):
    """Inside, the model computes with the average; afterwards its own arrays are back, whatever happened."""
    model, other = Transformer(tiny(), seed=0), Transformer(tiny(), seed=1)
    tokens = mx.array([[1, 2, 3, 4]])
    average = WeightAverage(other.trainable_parameters())
    run = mx.compile(lambda tokens: model(tokens), inputs=[model.state])
    before, own = np.array(run(tokens)), dict(tree_flatten(model.parameters()))
    with contextlib.suppress(KeyError), average.in_place(model):
        assert np.array_equal(np.array(model(tokens)), np.array(other(tokens)))
        assert np.allclose(np.array(run(tokens)), np.array(other(tokens)), atol=1e-6)
        raise KeyError
    assert np.array_equal(np.array(run(tokens)), before)
    for name, array in tree_flatten(model.parameters()):
        assert array is own[name], name


def test_what_is_frozen_has_no_average(tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny())
    model.layers[0].freeze()
    average = WeightAverage(model.trainable_parameters())
    average.update(tree_map(mx.zeros_like, model.trainable_parameters()), 0.5)
    own = {name: np.array(array) for name, array in tree_flatten(model.parameters())}
    with average.in_place(model):
        for name, array in tree_flatten(model.parameters()):
            assert np.allclose(np.array(array), own[name] if "layers.0." in name else own[name] / 2), name


def test_the_average_of_16_bit_weights_is_kept_in_32():
    """A hundredth of the way to 1 + 1/128, in bfloat16, would be nowhere at all."""
    average = WeightAverage({"w": mx.ones((2,), mx.bfloat16)})
    assert average.weights["w"].dtype == mx.float32
    for _ in range(3):
        average.update({"w": mx.full((2,), 1 + 1 / 128, mx.bfloat16)}, 0.01)
    assert np.array(average.weights["w"]) == pytest.approx(1 + (1 - 0.99**3) / 128, abs=1e-7)
    model = nn.Linear(1, 2, bias=False)
    model.set_dtype(mx.bfloat16)
    mean = WeightAverage({"weight": mx.ones((2, 1))})
    with mean.in_place(model):
        assert model.weight.dtype == mx.bfloat16
        assert model.weight.tolist() == [[1], [1]]
