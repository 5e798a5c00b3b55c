"""LoRA+: B moves `ratio` times as fast as A, under any schedule, and its state is saved and restored."""

import mlx.core as mx
import pytest
from mlx.optimizers import SGD
from mlx.utils import tree_flatten, tree_unflatten
from tuned_models import IDS, adapter_for, equal, make_model, near, next_token_nats, trained_adapter

from tinytale_mlx.recipe import TrainRecipe
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.step import Step
from tinytale_mlx.tuning.adapters import attach
from tinytale_mlx.tuning.rates import lora_plus


def loss(model, arrays, key):
    return next_token_nats(model, arrays[0]), mx.array(14.0)


def moves(optimizer, rate: float) -> dict[str, mx.array]:
    """How far one step moves each array."""
    model = make_model()
    attach(model, trained_adapter(model, targets=["q_proj", "embed_tokens"], train_final_norm=True))
    before = dict(tree_flatten(model.trainable_parameters()))
    Step(model, optimizer, None, loss)([[IDS]], rate, mx.random.key(0))
    return {name: array - before[name] for name, array in tree_flatten(model.trainable_parameters())}


@pytest.mark.parametrize("rate", [0.01, 0.03])
def test_b_moves_faster(rate: float) -> None:
    plain, plus = moves(SGD(0.5), rate), moves(lora_plus(lambda: SGD(0.5), 16.0), rate)
    assert plain.keys() == plus.keys()
    for name in plain:
        ratio = 16.0 if name.endswith("lora_b") else 1.0
        assert near(plus[name], ratio * plain[name], 2e-3)


def test_the_schedule_sees_one_rate() -> None:
    optimizer = lora_plus(lambda: SGD(0.5), 4.0)
    assert float(optimizer.learning_rate) == 0.5
    optimizer.learning_rate = 0.1
    assert [float(o.learning_rate) for o in optimizer.optimizers] == pytest.approx([0.4, 0.1])


def test_state_goes_there_and_back() -> None:
    """With AdamW: three steps, or one, the state through a dictionary of arrays, and two."""
    train = TrainRecipe(learning_rate=1e-2)
    found = []
    for interrupted in (False, True):
        model = make_model()
        attach(model, adapter_for(model, targets=["q_proj"]))
        optimizer = lora_plus(lambda: make_optimizer(train), 8.0)
        step = Step(model, optimizer, 1.0, loss)
        for number in range(3):
            if interrupted and number == 1:
                state = [(name, mx.array(array)) for name, array in tree_flatten(optimizer.state)]
                optimizer = lora_plus(lambda: make_optimizer(train), 8.0)
                optimizer.init(model.trainable_parameters())
                optimizer.state = tree_unflatten(state)
                step = Step(model, optimizer, 1.0, loss)
            step([[IDS]], 1e-2, mx.random.key(number))
        found.append(dict(tree_flatten(model.trainable_parameters())))
    assert all(equal(found[0][name], found[1][name]) for name in found[0])
