"""The reward model learns what can be learned from noisy comparisons, and says how sure it may be."""

import json
import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tinytale_mlx.alignment.comparing import calibration, comparison_metrics
from tinytale_mlx.alignment.measured import MeasuredStep, adam
from tinytale_mlx.alignment.pairs import Comparisons, ShuffledRows
from tinytale_mlx.alignment.reward_model import (
    CONFIG,
    WEIGHTS,
    RewardModel,
    comparison_loss,
    load_reward_model,
    reward_adapter,
    save_reward_model,
)
from tinytale_mlx.alignment.scoring import Rows, last_places, lay_out
from tinytale_mlx.errors import UserError
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe.align import RewardRecipe
from tinytale_mlx.recipe.tuning import TuneRecipe
from tinytale_mlx.tuning.adapter_files import load_adapter, save_adapter
from tinytale_mlx.tuning.adapters import attach

KEY = mx.random.key(0)
VOCABULARY, P, T = 12, 2, 8
TUNED = RewardRecipe(trunk="tuned")


class Counts(nn.Module):
    """A trunk whose hidden states are sums of what was read so far: the reward then is a sum over tokens."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.embed.weight = 0.3 * mx.random.normal((VOCABULARY, width), key=KEY)

    def hidden(self, ids: mx.array) -> mx.array:
        return mx.cumsum(self.embed(ids), axis=1)


def comparisons(dice: np.random.Generator, count: int, temperature: float) -> tuple[Comparisons, np.ndarray]:
    """Labelled as Bradley and Terry have it, of a true reward by token; and how often the best guess is right."""
    worth = np.linspace(-1, 1, VOCABULARY)
    made = [[[*dice.integers(1, VOCABULARY, dice.integers(1, T)).tolist(), 0] for _ in range(2)] for _ in range(count)]
    truth = np.array([[worth[response].sum() for response in pair] for pair in made])
    chance = 1 / (1 + np.exp((truth[:, 1] - truth[:, 0]) / temperature))
    swap = dice.uniform(size=count) > chance
    made = [pair[::-1] if swapped else pair for pair, swapped in zip(made, swap, strict=True)]
    rows = lay_out([[1, 2]] * (2 * count), [response for pair in made for response in pair], P, T)
    shaped = [array.reshape(count, 2, *array.shape[1:]) for array in rows]
    ranks = np.tile(np.array([1, 2], np.float32), (count, 1))
    best_guess = np.where(chance > 0.5, chance, 1 - chance).mean()
    return Comparisons(*shaped, ranks, np.zeros(count, np.float32)), best_guess


def scores(model: RewardModel, of: Comparisons, response: int) -> np.ndarray:
    return model.score(Rows(of.ids[:, response], of.starts[:, response], of.mask[:, response]), 256)


def fit(model: RewardModel, data: Comparisons, steps: int, rate: float, settings: RewardRecipe) -> MeasuredStep:
    step = MeasuredStep(model, comparison_loss(settings), adam())
    batches = ShuffledRows(data, 100, seed=0)
    for number in range(steps):
        step([batches.at(number)], rate * (1 - number / steps), KEY)
    return step


def test_it_is_nearly_as_right_as_can_be(dice):
    """0.02 from the ceiling that the noise of the labels sets, and as sure as it should be."""
    temperature = 0.8
    data, _ = comparisons(dice, 3000, temperature)
    fresh, _ = comparisons(dice, 4000, temperature)
    ceiling = comparisons(np.random.default_rng(9), 20000, temperature)[1]
    model = RewardModel(Counts(), 8, KEY)
    step = fit(model, data, 150, 0.03, TUNED)
    found = comparison_metrics(
        scores(model, fresh, 0), scores(model, fresh, 1), (fresh.mask[:, 0].sum(1), fresh.mask[:, 1].sum(1))
    )
    assert 0.6 < ceiling < 0.9
    assert found["accuracy"] == pytest.approx(ceiling, abs=0.02)
    assert found["calibration"] == pytest.approx(1, rel=0.2)
    assert found["loss"] < math.log(2) - 0.05
    assert found["accuracy_by_difference"][-1] > found["accuracy_by_difference"][0] + 0.2
    each = step.measured["accuracy"] / 100
    assert 0.5 < each < 1
    worth = np.linspace(-1, 1, VOCABULARY) / temperature
    learned = np.array(model.trunk.embed.weight @ model.head.weight)
    assert np.polyfit(worth[1:], learned[1:], 1)[0] == pytest.approx(1, rel=0.2)


def test_the_wrong_labels_teach_the_opposite(dice):
    """The same rewards with the sign turned: a loss that does not look at the order would not notice."""
    data, _ = comparisons(dice, 500, 0.5)
    turned = data._replace(ranks=data.ranks[:, ::-1].copy())
    found = []
    for each in (data, turned):
        model = RewardModel(Counts(), 8, KEY)
        model.head.weight = mx.zeros(8)
        fit(model, each, 30, 0.03, TUNED)
        found.append(scores(model, data, 0) - scores(model, data, 1))
    assert found[0].mean() > 0.2
    np.testing.assert_allclose(found[1], -found[0], atol=1e-3)


def test_a_head_alone_is_logistic_regression(dice):
    """On hidden states that stay as they are: the weights that Newton's method finds."""
    data, _ = comparisons(dice, 400, 1.0)
    model = RewardModel(Counts(4), 4, KEY)
    before = model.trunk.embed.weight
    step = MeasuredStep(model, comparison_loss(RewardRecipe()), adam())
    for number in range(400):
        step([data], 0.1 * (1 - number / 400), KEY)
    rows = [Rows(*(mx.array(array[:, side]) for array in data[:3])) for side in (0, 1)]
    last = [mx.take_along_axis(model.trunk.hidden(r.ids), last_places(r)[:, None, None], axis=1)[:, 0] for r in rows]
    features, weights = np.array(last[0] - last[1], np.float64), np.zeros(4)
    for _ in range(20):
        right = 1 / (1 + np.exp(-features @ weights))
        curvature = (features * (right * (1 - right))[:, None]).T @ features
        weights += np.linalg.solve(curvature, features.T @ (1 - right))
    assert mx.array_equal(model.trunk.embed.weight, before)
    assert np.abs(weights).max() > 0.1
    np.testing.assert_allclose(model.head.weight, weights, atol=2e-3)


def test_the_head_begins_as_it_should():
    wide = RewardModel(None, 4000, mx.random.key(3))
    assert np.array(wide.head.weight).std() == pytest.approx(4001**-0.5, rel=0.05)
    assert wide.head.bias.tolist() == [0]
    assert wide.head.weight.dtype == mx.float32
    model = RewardModel(Counts(), 8, KEY)
    model.head.weight = mx.zeros(8)
    data, _ = comparisons(np.random.default_rng(0), 4, 1.0)
    total, count, figures = comparison_loss(RewardRecipe())(model, [mx.array(array) for array in data])
    assert total.item() / count.item() == pytest.approx(math.log(2), abs=1e-6)
    assert figures["accuracy"].item() / count.item() == 0.5


# ---------------------------------------------------------------------- where it is read
@pytest.fixture
def model(tiny) -> RewardModel:
    return RewardModel(Transformer(tiny(), seed=2), 32, KEY)


def test_it_is_read_at_the_end_and_padding_changes_nothing(model):
    prompts, responses = [[1, 2, 3], [4]], [[5, 6, 0], [7, 0]]
    found = model.score(lay_out(prompts, responses, 3, 3))
    for i in range(2):
        hidden = model.trunk.hidden(mx.array([prompts[i] + responses[i]]))
        assert found[i] == pytest.approx(model.head(hidden)[0, -1].item(), abs=1e-5)
    wide = lay_out(prompts, responses, 8, 9)
    wide.ids[wide.ids == 0] = 39
    wide.ids[0, 5], wide.ids[1, 2] = 0, 0
    np.testing.assert_allclose(model.score(wide, 1), found, atol=1e-5)


def test_sixteen_bits_below_and_thirty_two_above(model):
    model.trunk.set_dtype(mx.bfloat16)
    rows = Rows(*map(mx.array, lay_out([[1, 2]], [[3, 0]], 2, 2)))
    assert model.raw(rows).dtype == mx.float32
    assert model.values(rows).dtype == mx.float32


# ---------------------------------------------------------------------- rankings
def test_a_ranking_is_all_its_pairs_and_every_prompt_weighs_alike(model, dice):
    """One row of three, one of two and an empty place; ties are not compared."""
    responses = [[5, 0], [6, 6, 0], [7, 0], [8, 0], [9, 9, 0], []]
    rows = lay_out([[1, 2]] * 6, responses, 2, 3)
    shaped = [array.reshape(2, 3, *array.shape[1:]) for array in rows]
    ranks = np.array([[2, 1, 2], [1, 2, np.inf]], np.float32)
    total, count, figures = comparison_loss(RewardRecipe())(
        model, [*map(mx.array, shaped), mx.array(ranks), mx.array([0.0, 0.3])]
    )
    r = [model.score(lay_out([[1, 2]], [each], 2, 3))[0] for each in responses[:5]]
    loss = lambda better, worse, margin=0.0: np.logaddexp(0, -(better - worse - margin))  # noqa: E731
    expected = (loss(r[1], r[0]) + loss(r[1], r[2])) / 2 + loss(r[3], r[4], 0.3)
    assert count.item() == 2
    assert total.item() == pytest.approx(expected, abs=1e-5)
    assert figures["margin"].item() == pytest.approx(r[1] - (r[0] + r[2]) / 2 + r[3] - r[4], abs=1e-5)


# ---------------------------------------------------------------------- afterwards
def test_normalized_rewards_have_mean_0_and_deviation_1(model, dice):
    def responses(seed: int) -> Rows:
        own = np.random.default_rng(seed)
        return lay_out([[1, 2]] * 400, [[*own.integers(1, 40, 5).tolist(), 0] for _ in range(400)], 2, 6)

    model.normalize(responses(0))
    first = model.bias, model.gain
    fresh = model.score(responses(1))
    assert abs(fresh.mean()) < 0.15
    assert fresh.std() == pytest.approx(1, abs=0.1)
    model.normalize(responses(0))
    assert (model.bias, model.gain) == first
    assert model.score(responses(0)).std() == pytest.approx(1, abs=1e-4)
    model.normalize(responses(0), "mean")
    assert (model.bias, model.gain) == (first[0], 1.0)
    critic_rows = Rows(*map(mx.array, responses(2)))
    model.normalize(responses(0))
    critic, before = model.as_critic(), model(critic_rows)
    assert mx.allclose(critic.raw(critic_rows), before, atol=1e-4)
    critic.head.weight = critic.head.weight * 0
    assert mx.array_equal(model(critic_rows), before)
    model.normalize(responses(0), "none")
    assert mx.array_equal(model(critic_rows), model.raw(critic_rows))


def test_a_reward_model_that_says_nothing_cannot_be_normalized(model):
    model.head.weight = mx.zeros(32)
    with pytest.raises(UserError, match="learned nothing"):
        model.normalize(lay_out([[1]] * 3, [[2], [3], [4]], 1, 1))


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    rows = lay_out([[1, 2]] * 3, [[5, 0], [6, 7, 0], [8, 0]], 2, 3)
    model.normalize(rows)
    save_reward_model(tmp_path / "reward", model)
    save_reward_model(tmp_path / "reward", model)
    assert {file.name for file in (tmp_path / "reward").iterdir()} == {WEIGHTS, CONFIG}
    again = load_reward_model(tmp_path / "reward")
    np.testing.assert_array_equal(again.score(rows), model.score(rows))
    assert json.loads((tmp_path / "reward" / CONFIG).read_text())["gain"] == model.gain


@pytest.mark.parametrize("damage", ["missing", "no json", "no weights", "other shape"])
def test_what_is_no_reward_model_is_refused(model, tmp_path, damage):
    save_reward_model(tmp_path, model)
    if damage == "missing":
        (tmp_path / CONFIG).unlink()
    elif damage == "no json":
        (tmp_path / CONFIG).write_text("{")
    elif damage == "no weights":
        (tmp_path / WEIGHTS).write_bytes(b"")
    else:
        content: Any = json.loads((tmp_path / CONFIG).read_text())
        content["model"]["hidden_size"] = 16
        (tmp_path / CONFIG).write_text(json.dumps(content))
    with pytest.raises(UserError, match="no reward model" if damage == "missing" else "is damaged"):
        load_reward_model(tmp_path)


def test_an_adapter_of_a_reward_model_has_its_head(model, tmp_path, tiny):
    rows = lay_out([[1, 2]] * 3, [[5, 0], [6, 7, 0], [8, 0]], 2, 3)
    tuned = attach(model, reward_adapter(model, TuneRecipe(rank=2), KEY))
    names = {name for name, _ in tree_flatten(model.trainable_parameters())}
    assert {name for name in names if "lora" not in name} == {"head.weight", "head.bias"}
    model.head.weight = model.head.weight + 1
    changed = model.score(rows)
    save_adapter(tmp_path / "adapter", tuned.adapter())
    fresh = RewardModel(Transformer(tiny(), seed=2), 32, mx.random.key(5))
    attach(fresh, load_adapter(tmp_path / "adapter"))
    np.testing.assert_array_equal(fresh.score(rows), changed)


# ---------------------------------------------------------------------- figures
def test_figures_by_hand():
    found = comparison_metrics(
        np.array([1.0, 2.0, 0.0, 3.0]),
        np.array([0.0, 2.0, 1.5, -1.0]),
        (np.array([5, 5, 2, 9]), np.array([3, 5, 4, 5])),
    )
    assert found["accuracy"] == (1 + 0.5 + 0 + 1) / 4
    assert found["margin"] == (1 + 0 - 1.5 + 4) / 4
    assert found["accuracy_by_difference"] == [0.5, None, 0.5, 1.0]
    assert (found["accuracy_chosen_longer"], found["accuracy_chosen_shorter"]) == (1.0, 0.0)
    assert (found["chosen_min"], found["rejected_max"]) == (0.0, 2.0)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0, -0.7])
def test_calibration_finds_the_unit(dice, true):
    difference = dice.normal(size=20000)
    right = dice.uniform(size=20000) < 1 / (1 + np.exp(-true * difference))
    assert calibration(np.where(right, difference, -difference)) == pytest.approx(true, abs=0.06)


def test_calibration_of_no_mistakes_is_unknown():
    assert calibration(np.array([1.0, 2.0])) is None
