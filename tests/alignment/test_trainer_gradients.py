"""Every trainer's step against finite differences, and who moves: all that is trained, and nothing else.

The trap that others fell into: a forward pass outside of what is differentiated, and a loss that looks well.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tinytale_mlx.alignment.actor_critic import ActorCritic
from tinytale_mlx.alignment.group_policy import group_loss
from tinytale_mlx.alignment.measured import Measured, MeasuredLoss, MeasuredStep
from tinytale_mlx.alignment.ppo import ppo_losses
from tinytale_mlx.alignment.preference_tuning import kto_loss, preference_loss
from tinytale_mlx.alignment.reward_model import RewardModel, comparison_loss, reward_adapter
from tinytale_mlx.alignment.scoring import lay_out
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe.align import GroupRecipe, PPORecipe, PreferenceRecipe, RewardRecipe
from tinytale_mlx.recipe.tuning import TuneRecipe
from tinytale_mlx.tuning.adapters import Adapter, attach, new_adapter

LORA = TuneRecipe(rank=2)
ROWS, P, T = 6, 4, 5


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """On a CPU it takes longer to compile all these steps than to do them; the tests of optima have theirs compiled."""
    mx.disable_compile()
    yield
    mx.enable_compile()


class Case(NamedTuple):
    model: Any
    loss: MeasuredLoss | dict[str, MeasuredLoss]
    arrays: list[np.ndarray]


def transformer(tiny, seed: int) -> Transformer:
    model = Transformer(tiny(layers=1), seed)
    model.update({"model": {"embed_tokens": {"weight": 8 * model.model.embed_tokens.weight}}})
    return model


def noisy(adapter: Adapter, dice: np.random.Generator) -> Adapter:
    """As after some training: while B is zero, A has no gradient."""
    weights = {name: a + mx.array(0.2 * dice.normal(size=a.shape), mx.float32) for name, a in adapter.weights.items()}
    return Adapter(adapter.method, weights, adapter.scale)


def tuned(tiny, dice: np.random.Generator) -> Transformer:
    model = transformer(tiny, 1)
    return attach(model, noisy(new_adapter(model, LORA, mx.random.key(0)), dice)).model


def reward_model(tiny, dice: np.random.Generator) -> RewardModel:
    model = RewardModel(transformer(tiny, 2), 32, mx.random.key(1))
    return attach(model, noisy(reward_adapter(model, LORA, mx.random.key(2)), dice)).model


def ragged(dice: np.random.Generator, *shape: int) -> list[np.ndarray]:
    count = int(np.prod(shape))
    prompts = [dice.integers(1, 40, dice.integers(1, P + 1)).tolist() for _ in range(count)]
    responses = [[*dice.integers(1, 40, dice.integers(1, T)).tolist(), 0] for _ in range(count)]
    return [array.reshape(*shape, *array.shape[1:]) for array in lay_out(prompts, responses, P, T)]


def case(kind: str, tiny, dice: np.random.Generator) -> Case:
    def number(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * dice.normal(size=shape)).astype(np.float32)

    lengths = {"prompt_tokens": P, "response_tokens": T}
    name, _, method = kind.partition("-")
    if name == "reward":
        ranks = np.array([[1, 2, 3], [2, 2, 1]] * 3, np.float32)
        arrays = [*ragged(dice, ROWS, 3), ranks, number(ROWS, scale=0.3)]
        settings = RewardRecipe(trunk="tuned", centring=0.01, **lengths)
        return Case(reward_model(tiny, dice), comparison_loss(settings), arrays)
    if name == "ppo":
        rows = ragged(dice, ROWS)
        old, advantages, values, returns = -3.5 + number(ROWS, T, scale=0.1), *(number(ROWS, T) for _ in range(3))
        settings = PPORecipe(entropy_coefficient=0.1, value_coefficient=0.5, clip=0.9, **lengths)
        critic = reward_model(tiny, dice) if method == "separate" else 32
        model = ActorCritic(tuned(tiny, dice), critic)
        ptx = [dice.integers(1, 40, (ROWS, 7)).astype(np.int32), np.ones((ROWS, 6), np.float32)]
        return Case(model, ppo_losses(settings, method == "separate"), [*rows, old, advantages, values, returns, *ptx])
    if name == "group":
        arrays = [*ragged(dice, ROWS), -3.5 + number(ROWS, T, scale=0.1), -3.5 + number(ROWS, T), number(ROWS)]
        return Case(tuned(tiny, dice), group_loss(GroupRecipe(method=method, clip=0.9, kl=0.3, **lengths)), arrays)
    if name == "kto":
        arrays = [*ragged(dice, ROWS), np.arange(ROWS) % 2 == 0, -9 + number(ROWS), np.full(ROWS, 0.3, np.float32)]
        return Case(tuned(tiny, dice), kto_loss(PreferenceRecipe(method="kto", **lengths)), arrays)
    nll = 0.0 if method == "orpo" else 0.5
    settings = PreferenceRecipe(method=method, beta=0.5, nll=nll, **lengths)
    return Case(tuned(tiny, dice), preference_loss(settings), [*ragged(dice, ROWS, 2), -9 + number(ROWS, 2)])


KINDS = [
    "reward", "ppo-shared", "ppo-separate", "group-dr_grpo", "group-grpo", "group-dapo", "group-gspo", "group-rloo",
    "pairs-dpo", "pairs-ipo", "pairs-hinge", "pairs-orpo", "pairs-simpo", "kto",
]  # fmt: skip


@pytest.fixture(params=KINDS)
def trained(request: pytest.FixtureRequest, tiny, dice: np.random.Generator) -> Case:
    return case(request.param, tiny, dice)


def stepped(of: Case, pieces: int = 1) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], MeasuredStep]:
    """Every array before and after one plain step at rate 1, and the step."""
    before = {name: np.array(array) for name, array in tree_flatten(of.model.parameters())}
    step = MeasuredStep(of.model, of.loss, optim.SGD(1.0), None)
    batches = zip(*(np.split(array, pieces) for array in of.arrays), strict=True)
    step(batches, 1.0, mx.random.key(0))
    return before, {name: np.array(array) for name, array in tree_flatten(of.model.parameters())}, step


def test_all_that_is_trained_moves_and_nothing_else(trained):
    names = {name for name, _ in tree_flatten(trained.model.trainable_parameters())}
    before, after, _ = stepped(trained)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    constant = (
        {name for name in names if name.endswith("head.bias")} if isinstance(trained.model, RewardModel) else set()
    )
    assert moved | constant == names
    assert len(names) < len(before)


def test_the_step_is_the_finite_difference(trained, dice):
    """Along a random direction of all that is trained: a wrong sign, mask or shift in any of it shows."""
    before, after, _ = stepped(trained)
    names = [name for name, _ in tree_flatten(trained.model.trainable_parameters())]
    direction = {name: dice.normal(size=before[name].shape) for name in names}
    size = np.sqrt(sum((d**2).sum() for d in direction.values()))

    def mean_loss(distance: float) -> float:
        there = {n: mx.array(before[n] + distance / size * direction[n], mx.float32) for n in names}
        trained.model.update(tree_unflatten(list(there.items())))
        losses = trained.loss.values() if isinstance(trained.loss, dict) else [trained.loss]
        found = [loss(trained.model, [mx.array(array) for array in trained.arrays]) for loss in losses]
        return sum(total.item() for total, *_ in found) / found[0][1].item()

    distance = 0.02
    slope = (mean_loss(distance) - mean_loss(-distance)) / (2 * distance)
    found = sum(((before[n] - after[n]) * direction[n]).sum() for n in names) / size
    norm = np.sqrt(sum(((before[n] - after[n]) ** 2).sum() for n in names))
    assert norm > 1e-3
    assert found == pytest.approx(slope, abs=float(max(0.01 * abs(found), 2e-3 * norm)))


def test_micro_batches_make_the_same_step(trained):
    start = trained.model.parameters()
    _, whole, step = stepped(trained)
    trained.model.update(start)
    _, pieces, other = stepped(trained, pieces=3)
    for name, array in whole.items():
        np.testing.assert_allclose(pieces[name], array, atol=2e-5)
    assert other.measured.keys() == step.measured.keys()
    for name, value in step.measured.items():
        assert other.measured[name] == pytest.approx(value, rel=1e-3, abs=1e-3)


def test_the_order_of_the_rows_does_not_matter(trained, dice):
    start, order = trained.model.parameters(), dice.permutation(ROWS)
    _, straight, _ = stepped(trained)
    trained.model.update(start)
    _, mixed, _ = stepped(trained._replace(arrays=[array[order] for array in trained.arrays]))
    for name, array in straight.items():
        np.testing.assert_allclose(mixed[name], array, atol=2e-5)


def test_measuring_differentiates_nothing():
    """The figures of a loss are no part of it."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight = mx.ones((1, 2))

    def loss(model: nn.Linear, arrays: Any) -> Measured:
        (x,) = arrays
        return model(x).sum(), mx.array(len(x)), {"square": mx.square(model.weight).sum()}

    step = MeasuredStep(layer, loss, optim.SGD(1.0), None)
    result = step([(np.ones((2, 2), np.float32),)], 1.0, mx.random.key(0))
    assert layer.weight.tolist() == [[0, 0]]
    assert result.grad_norm == pytest.approx(2**0.5)
    assert step.measured == {"square": 2.0 * len(step.lanes[:2])}
