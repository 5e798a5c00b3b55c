"""One optimiser step: the same, however its tokens are cut into micro-batches, lanes and rows."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tinytale_mlx.data.batches import Batch, Batches, Shuffled
from tinytale_mlx.data.rows import WindowRows
from tinytale_mlx.models import Transformer
from tinytale_mlx.randomness import key
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training.losses import next_token_loss
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.schedules import learning_rate
from tinytale_mlx.training.step import Step, StepResult

KEY = mx.random.key(0)


@pytest.fixture
def batch(dice: np.random.Generator) -> Batch:
    """Eight rows, some of them half empty."""
    tokens = dice.integers(0, 40, (8, 13)).astype(np.int32)
    weights = np.ones((8, 12), np.float32)
    weights[2, 3:], weights[5], weights[7, :9] = 0, 0, 0
    return Batch(tokens, weights)


@pytest.fixture
def documents(batch: Batch, dice: np.random.Generator) -> Batch:
    """The same rows, each of three documents."""
    begins = np.sort(dice.permuted(np.tile(np.arange(1, 13), (8, 1)), axis=1)[:, :2])
    return batch._replace(segments=(np.arange(13) >= begins[..., None]).sum(axis=1).astype(np.int32))


def cut(batch: Batch, *borders: int) -> list[Batch]:
    pieces = [[None] * (len(borders) + 1) if part is None else np.split(part, borders) for part in batch]
    return [Batch(*arrays) for arrays in zip(*pieces, strict=True)]


def weights_of(model: Transformer) -> dict[str, np.ndarray]:
    return {name: np.array(array, np.float64) for name, array in tree_flatten(model.parameters())}


def sgd_step(
    config: ModelConfig, batches: list[Batch], lanes: int = 1, limit: float | None = None, key: mx.array = KEY
) -> tuple[StepResult, dict[str, np.ndarray]]:
    """The result of a step of plain gradient descent at rate 1, and how far each parameter moved."""
    model = Transformer(config, seed=1)
    before = weights_of(model)
    step = Step(model, optim.SGD(learning_rate=1.0), limit)
    step.lanes = [mx.new_stream(mx.default_device()) for _ in range(lanes)]
    result = step(batches, 1.0, key)
    return result, {name: array - before[name] for name, array in weights_of(model).items()}


def mean_gradient(config: ModelConfig, batch: Batch) -> tuple[float, dict[str, np.ndarray]]:
    """Σ nats, and the gradient of Σ nats / Σ weights, taken directly."""
    model = Transformer(config, seed=1)
    tokens, weights = mx.array(batch.tokens), mx.array(batch.weights)
    segments = None if batch.segments is None else mx.array(batch.segments[:, :-1])

    def loss(parameters: dict) -> mx.array:
        model.update(parameters)
        return next_token_loss(model(tokens[:, :-1], segments=segments), tokens, weights)

    nats, gradients = mx.value_and_grad(loss)(model.trainable_parameters())
    total = batch.weights.sum()
    return nats.item(), {name: np.array(g, np.float64) / total for name, g in tree_flatten(gradients)}


def assert_close(a: dict[str, np.ndarray], b: dict[str, np.ndarray], tolerance: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert np.allclose(a[name], b[name], atol=tolerance * np.abs(b[name]).max() + 2e-7), name


def norm_of(arrays: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum((array**2).sum() for array in arrays.values())))


# ---------------------------------------------------------------------- what a step is
def test_a_step_goes_down_the_gradient_of_the_mean(tiny: Callable[..., ModelConfig], batch: Batch):
    result, moved = sgd_step(tiny(), [batch])
    nats, gradient = mean_gradient(tiny(), batch)
    assert result.tokens == batch.weights.sum()
    assert result.nats == pytest.approx(nats, rel=1e-5)
    assert result.grad_norm == pytest.approx(norm_of(gradient), rel=1e-4)
    assert_close(moved, {name: -g for name, g in gradient.items()}, 1e-4)


@pytest.mark.parametrize("borders", [(4,), (2, 4, 6), (1,), (5, 6)], ids=str)
def test_micro_batches_add_up(tiny: Callable[..., ModelConfig], batch: Batch, borders: tuple[int, ...]):
    """2 x 4 is 1 x 8, and so is 1 + 7: tokens count, not micro-batches, and empty rows for nothing."""
    whole, moved = sgd_step(tiny(), [batch])
    parts, moved_by_parts = sgd_step(tiny(), cut(batch, *borders))
    assert parts == pytest.approx(whole, rel=1e-5)
    assert_close(moved_by_parts, moved)


@pytest.mark.parametrize("lanes", [2, 16])
def test_lanes_share_the_rows(tiny: Callable[..., ModelConfig], batch: Batch, lanes: int):
    one, moved = sgd_step(tiny(), [batch])
    many, moved_by_many = sgd_step(tiny(), [batch], lanes=lanes)
    assert many == pytest.approx(one, rel=1e-5)
    assert_close(moved_by_many, moved)


def test_documents_do_not_see_each_other(tiny: Callable[..., ModelConfig], documents: Batch):
    """However the rows are shared out; and a step with segments and one without do not get into each other's way."""
    nats, gradient = mean_gradient(tiny(), documents)
    for batches, lanes in (([documents], 1), (cut(documents, 4), 2)):
        result, moved = sgd_step(tiny(), batches, lanes)
        assert result.nats == pytest.approx(nats, rel=1e-5)
        assert_close(moved, {name: -g for name, g in gradient.items()}, 1e-4)
    plain = documents._replace(segments=None)
    apart, together = sgd_step(tiny(), [documents]), sgd_step(tiny(), [plain])
    assert abs(apart[0].nats - together[0].nats) > 1e-3
    step = Step(Transformer(tiny(), seed=1), optim.SGD(learning_rate=0.0), None)
    for batch, (expected, _) in ((plain, together), (documents, apart), (plain, together)):
        assert step([batch], 0.0, KEY).nats == pytest.approx(expected.nats, rel=1e-5)


def test_a_pair_of_tokens_and_weights_is_a_batch(tiny: Callable[..., ModelConfig], batch: Batch):
    assert sgd_step(tiny(), [(batch.tokens, batch.weights)])[0] == sgd_step(tiny(), [batch])[0]


@pytest.mark.parametrize("share", [0.1, 10.0])
def test_clipping_shortens_the_step_and_not_the_norm_told(tiny: Callable[..., ModelConfig], batch: Batch, share: float):
    free, moved = sgd_step(tiny(), [batch])
    clipped, moved_less = sgd_step(tiny(), [batch], limit=share * free.grad_norm)
    assert clipped.grad_norm == pytest.approx(free.grad_norm, rel=1e-5)
    assert norm_of(moved_less) == pytest.approx(min(share, 1.0) * norm_of(moved), rel=1e-4)


def test_a_step_without_targets_moves_nothing(tiny: Callable[..., ModelConfig], batch: Batch):
    result, moved = sgd_step(tiny(), [Batch(batch.tokens, np.zeros_like(batch.weights))])
    assert result == StepResult(0, 0, 0)
    assert norm_of(moved) == 0


def test_a_step_needs_a_micro_batch(tiny: Callable[..., ModelConfig]):
    with pytest.raises(ValueError, match="at least one micro-batch"):
        sgd_step(tiny(), [])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True, "mlp_bias": True, "kv_heads": 2, "norm": "layernorm"},
        {"positions": "learned", "norm_placement": "post"},
        {"positions": "t5", "qk_norm": True, "tie_embeddings": False, "layers": 4, "distinct_layers": 2},
    ],
    ids=["rope-bias", "learned-post-norm", "t5-shared"],
)
def test_a_step_moves_every_parameter(
    optimizer: str, changes: dict[str, Any], tiny: Callable[..., ModelConfig], batch: Batch
):
    model = Transformer(tiny(**changes))
    before = weights_of(model)
    recipe = TrainRecipe(optimizer=optimizer, weight_decay=0.0)
    Step(model, make_optimizer(recipe), 1.0)([batch], 1e-2, KEY)
    for name, after in weights_of(model).items():
        assert np.abs(after - before[name]).max() > 1e-4, name


def test_what_is_frozen_stays(tiny: Callable[..., ModelConfig], batch: Batch):
    model = Transformer(tiny())
    model.layers[0].freeze()
    before = weights_of(model)
    step = Step(model, make_optimizer(TrainRecipe()), 1.0)
    for _ in range(2):
        step([batch], 1e-2, KEY)
    for name, after in weights_of(model).items():
        assert np.array_equal(after, before[name]) == ("layers.0." in name), name


def test_the_learning_rate_is_that_of_the_step(tiny: Callable[..., ModelConfig], batch: Batch):
    """Compiled once, and still a new rate each time."""
    model = Transformer(tiny(), seed=1)
    step = Step(model, optim.SGD(learning_rate=123.0), None)
    lengths = []
    for rate in (0.0, 1e-3, 2e-3):
        before = weights_of(model)
        result = step([batch], rate, KEY)
        after = weights_of(model)
        lengths.append(norm_of({name: after[name] - before[name] for name in after}) / result.grad_norm)
    assert lengths == pytest.approx([0.0, 1e-3, 2e-3], rel=1e-3)


# ---------------------------------------------------------------------- dropout
def test_dropout_draws_from_the_key(tiny: Callable[..., ModelConfig], batch: Batch):
    config = tiny(residual_dropout=0.3, embedding_dropout=0.1, attention_dropout=0.1)
    one, moved = sgd_step(config, [batch])
    again, moved_again = sgd_step(config, [batch])
    other, _ = sgd_step(config, [batch], key=mx.random.key(1))
    plain, _ = sgd_step(tiny(), [batch])
    assert again == one
    assert all(np.array_equal(moved_again[name], moved[name]) for name in moved)
    assert other.nats != one.nats
    assert plain.nats != one.nats


def test_each_micro_batch_and_lane_drops_for_itself(tiny: Callable[..., ModelConfig], batch: Batch):
    """Two times the same rows, and the sum is not twice one of them."""
    half = cut(batch, 4)[0]
    twice = Batch(np.concatenate([half.tokens] * 2), np.concatenate([half.weights] * 2))
    config = tiny(residual_dropout=0.3)
    one, _ = sgd_step(config, [half])
    two, _ = sgd_step(config, [half, half])
    side_by_side, _ = sgd_step(config, [twice], lanes=2)
    assert abs(two.nats - 2 * one.nats) > 1e-3
    assert abs(side_by_side.nats - 2 * sgd_step(config, [half], lanes=1)[0].nats) > 1e-3


# ---------------------------------------------------------------------- many steps
def twenty_losses(config: ModelConfig, train: TrainRecipe) -> list[float]:
    """As the loop does it, over a text in which each token follows from the two before."""
    text = np.zeros(4000, np.uint16)
    for i in range(2, len(text)):
        text[i] = (3 * text[i - 1] + text[i - 2] + (i % 7 == 0)) % 40
    batches = Batches(Shuffled(WindowRows(text, config.context, 0), 0), train.batch_size)
    model = Transformer(config, seed=0)
    step = Step(model, make_optimizer(train), train.max_grad_norm)
    losses = []
    for number in range(20):
        micro = [batches.at(number * train.accumulate + i) for i in range(train.accumulate)]
        result = step(micro, learning_rate(number, train), key(0, "dropout", number))
        losses.append(result.nats / result.tokens)
    return losses


FAMILIES: dict[str, tuple[str, dict[str, Any], list[float]]] = {
    "Llama": ("adamw", {"kv_heads": 2}, [3.6899, 3.2953, 2.6024, 2.2348, 2.1435]),
    "Llama, Muon": ("muon", {"kv_heads": 2}, [3.6899, 3.2632, 2.6579, 2.4350, 2.4184]),
    "Qwen3, Muon": ("muon", {"qk_norm": True, "residual_init": "zero"}, [3.6879, 3.2628, 2.6165, 2.3400, 2.2910]),
    "GPT-2": (
        "adamw",
        {"positions": "learned", "norm": "layernorm", "activation": "gelu", "attention_bias": True, "mlp_bias": True},
        [3.6995, 3.2979, 2.5107, 2.0974, 1.9800],
    ),
}
"""Of each family of recipes an optimiser, what its models have, and losses."""


@pytest.mark.usefixtures("either_exp")
@pytest.mark.parametrize("family", FAMILIES)
def test_golden_losses(family: str, tiny: Callable[..., ModelConfig]):
    """Steps 1, 5, 10, 15 and 20 of a fixed recipe. A change here changes what people's runs compute."""
    optimizer, shape, golden = FAMILIES[family]
    train = TrainRecipe(
        steps=20, batch_size=4, accumulate=2, learning_rate=1e-2, min_learning_rate=1e-3, warmup_steps=4,
        optimizer=optimizer,
    )  # fmt: skip
    losses = twenty_losses(tiny(**shape), train)
    assert [losses[i] for i in (0, 4, 9, 14, 19)] == pytest.approx(golden, abs=1e-3)
