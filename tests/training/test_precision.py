"""16 bits: for every way to build a model, the gradients of 32 bits to within rounding, and the same training."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tinytale_mlx.data.rows import Batch
from tinytale_mlx.models import Transformer, wide
from tinytale_mlx.models.elementary import softmax
from tinytale_mlx.randomness import key
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.recipe.training import Precision
from tinytale_mlx.training.losses import cross_entropy, token_loss
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.precision import DTYPES, LossScale, cast, prepare
from tinytale_mlx.training.step import Step

NARROW: list[Precision] = ["bfloat16", "float16"]
ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half a unit in the last place, times two."""
SWITCHES: dict[str, dict[str, Any]] = {
    "rope": {},
    "learned": {"positions": "learned"},
    "sinusoidal": {"positions": "sinusoidal"},
    "t5": {"positions": "t5"},
    "alibi": {"positions": "alibi"},
    "no-positions": {"positions": "none"},
    "yarn": {"rope_scaling": {"type": "yarn", "factor": 2, "original_context": 12}},
    "grouped": {"kv_heads": 2, "attention": "manual"},
    "window": {"sliding_window": 5},
    "qk-norm": {"qk_norm": True, "norm_weight": False},
    "layernorm": {"norm": "layernorm"},
    "post-norm": {"norm_placement": "post"},
    "embedding-norm": {"embedding_norm": True},
    "biases": {"attention_bias": True, "mlp_bias": True, "norm": "layernorm"},
    "gelu": {"activation": "gelu"},
    "gelu-tanh": {"activation": "gelu_tanh"},
    "silu": {"activation": "silu"},
    "relu": {"activation": "relu"},
    "relu2": {"activation": "relu2"},
    "untied": {"tie_embeddings": False},
    "softcap": {"logit_softcap": 2.0},
    "shared": {"distinct_layers": 1},
    "dropout": {"embedding_dropout": 0.1, "attention_dropout": 0.1, "residual_dropout": 0.1},
}
KEY = mx.random.key(0)


@pytest.fixture
def batch(dice: np.random.Generator) -> Batch:
    """Token 7 is most of it, as "the" is in a text."""
    tokens = np.where(dice.random((8, 25)) < 0.6, 7, dice.integers(0, 40, (8, 25))).astype(np.int32)
    return Batch(tokens, np.ones((8, 24), np.float32))


@pytest.fixture
def eager() -> Iterator[None]:
    """Nothing is compiled, which on a CPU takes seconds for every new model."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def drawn(config: ModelConfig, dice: np.random.Generator) -> Transformer:
    """A model of which every parameter, biases and norms too, is a number that 16 bits have, too."""
    model = Transformer(config, seed=1)
    for name, array in tree_flatten(model.parameters()):
        noise = mx.array(dice.normal(size=array.shape).astype(np.float32)) * 0.2
        model.load_weights([(name, (array + noise).astype(mx.bfloat16).astype(mx.float32))], strict=False)
    return model


def gradients_of(model: Transformer, batch: Batch, precision: Precision) -> tuple[float, dict[str, np.ndarray]]:
    """Mean loss and gradients as a step has them: what plain descent at rate 1 takes away, in float64."""
    before = {name: np.array(array, np.float64) for name, array in tree_flatten(model.parameters())}
    scale = LossScale(256.0, 1000) if precision == "float16" else None
    step = Step(model, optim.SGD(learning_rate=1.0), None, precision=precision, loss_scale=scale)
    result = step([batch], 1.0, KEY)
    assert result.applied
    after = dict(tree_flatten(model.parameters()))
    assert {array.dtype for array in after.values()} == {mx.float32}
    return result.nats / result.tokens, {name: before[name] - np.array(after[name], np.float64) for name in before}


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.usefixtures("either_exp", "eager")
def test_gradients(switch: str, precision: Precision, tiny: Callable[..., ModelConfig], batch: Batch):
    """Against float32's: the whole direction, and each parameter's own gradient by its norm."""
    config = tiny(**SWITCHES[switch])
    loss, exact = gradients_of(drawn(config, np.random.default_rng(1)), batch, "float32")
    narrow_loss, narrow = gradients_of(drawn(config, np.random.default_rng(1)), batch, precision)
    assert narrow_loss == pytest.approx(loss, rel=2 * ROUNDING[precision])
    flat = [np.concatenate([g.ravel() for g in one.values()]) for one in (exact, narrow)]
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert cosine > 1 - 20 * ROUNDING[precision] ** 2 - 1e-6
    worst = max(np.linalg.norm(narrow[name] - exact[name]) / np.linalg.norm(exact[name]) for name in exact)
    assert worst < 12 * ROUNDING[precision]


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.usefixtures("either_exp", "eager")
def test_nothing_is_promoted(switch: str, precision: Precision, tiny: Callable[..., ModelConfig], batch: Batch):
    """The stream between the blocks stays in 16 bits, with dropout and segments and without."""
    model = Transformer(tiny(**SWITCHES[switch]))
    model.update(cast(model.parameters(), precision))
    tokens = mx.array(batch.tokens)
    for arguments in ({}, {"key": KEY}, {"segments": mx.array(batch.tokens[:, :-1] // 20)}):
        assert model.hidden(tokens[:, :-1], **arguments).dtype == DTYPES[precision]
    total, count = token_loss(model, [tokens, mx.array(batch.weights)], KEY)
    assert total.dtype == count.dtype == mx.float32


@pytest.mark.parametrize("precision", NARROW)
def test_training_ends_where_it_does_in_32_bits(precision: Precision, tiny: Callable[..., ModelConfig]):
    """30 steps; the last loss within 0.02 nats, which is what the order of sums alone may do to it."""
    losses = {}
    for kind in ("float32", precision):
        dice = np.random.default_rng(0)
        text = np.cumsum(dice.integers(1, 4, (30, 4, 25)), axis=-1) % 40
        train = TrainRecipe(steps=30, learning_rate=1e-2, precision=kind)
        step = Step(
            Transformer(tiny()), make_optimizer(train), 1.0, precision=kind, loss_scale=LossScale.of(train)
        )  # fmt: skip
        results = [
            step([Batch(rows.astype(np.int32), np.ones((4, 24), np.float32))], 1e-2, key(0, "dropout", number))
            for number, rows in enumerate(text)
        ]
        assert all(result.applied for result in results)
        losses[kind] = [result.nats / result.tokens for result in results]
    assert losses["float32"][-1] < losses["float32"][0] - 1.5  # it has learned something
    assert losses[precision][-1] == pytest.approx(losses["float32"][-1], abs=0.02)


# ---------------------------------------------------------------------- sums
@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_sums_of_many_small_numbers(precision: Precision, compiled: bool, dice: np.random.Generator):
    """What a running total in 16 bits would lose: 4,096 numbers about 1. Rounded once, at the end."""
    dtype, count = DTYPES[precision], 4096
    cotangent = mx.array((dice.normal(size=(count, 8)) + 1).astype(np.float32)).astype(dtype)
    exact = np.array(cotangent.astype(mx.float32), np.float64)
    rows = mx.array(dice.integers(0, 4, count))
    by_row = np.stack([exact[np.array(rows) == row].sum(0) for row in range(4)])
    zeros = mx.zeros((count, 8), dtype)
    cases = [
        (lambda table: wide.lookup(table, rows), (4, 8), by_row),
        (lambda addend: wide.add(zeros, addend), (8,), exact.sum(0)),
        (lambda addend: wide.add(zeros.reshape(4, -1, 8), addend), (4, 1, 8), exact.reshape(4, -1, 8).sum(1)[:, None]),
    ]
    for function, shape, expected in cases:
        gradient = mx.grad(lambda x, f=function: (f(x) * cotangent.reshape(f(x).shape)).astype(mx.float32).sum())
        found = (mx.compile(gradient) if compiled else gradient)(mx.ones(shape, dtype))
        assert found.dtype == dtype
        assert found.shape == shape
        assert np.allclose(np.array(found.astype(mx.float32)), expected, rtol=ROUNDING[precision])


@pytest.mark.parametrize("precision", NARROW)
def test_the_derivative_of_softmax_is_summed_in_32_bits(precision: Precision, dice: np.random.Generator):
    x = mx.array(dice.normal(size=(4, 2048)).astype(np.float32)).astype(DTYPES[precision])
    weights = mx.array(dice.normal(10.0, size=x.shape).astype(np.float32))

    def loss(x: mx.array) -> mx.array:
        return (softmax(x).astype(mx.float32) * weights).sum()

    found, exact = np.array(mx.grad(loss)(x).astype(mx.float32)), np.array(mx.grad(loss)(x.astype(mx.float32)))
    error = np.abs(found - exact).max() / np.abs(exact).max()
    assert error < 12 * ROUNDING[precision]  # the cotangent, about 10, is rounded, and all but 1 of it cancels


def test_losses_are_summed_in_32_bits(dice: np.random.Generator):
    """Over 50,000 logits, where 16 bits lose 0.05 nats."""
    logits = mx.array(dice.normal(size=(4, 50_000)).astype(np.float32)).astype(mx.bfloat16)
    targets = mx.array([0, 1, 2, 3])
    x = np.array(logits.astype(mx.float32), np.float64)
    expected = np.log(np.exp(x).sum(-1)) - x[np.arange(4), np.arange(4)]
    assert np.allclose(np.array(cross_entropy(logits, targets)), expected, atol=1e-4)


@pytest.mark.parametrize("chunk_tokens", [300, 2048])
@pytest.mark.usefixtures("eager")
def test_a_loss_in_chunks_does_not_overflow(chunk_tokens: int, tiny: Callable[..., ModelConfig]):
    """2,048 times the same token: gradients that overflow within a chunk are what no loss scale would mend."""
    tokens = mx.full((8, 257), 7, mx.int32)
    weights = mx.ones((8, 256))
    model = Transformer(tiny(context=256), seed=1)
    parameters = model.trainable_parameters()

    def gradients(precision: Precision, chunk_tokens: int | None) -> dict[str, mx.array]:
        def scaled(parameters: dict) -> mx.array:
            model.update(cast(parameters, precision))
            return token_loss(model, [tokens, weights], KEY, chunk_tokens)[0] / 8

        return dict(tree_flatten(mx.grad(scaled)(parameters)))

    exact, found = gradients("float32", None), gradients("float16", chunk_tokens)
    name = "model.embed_tokens.weight"
    error = mx.linalg.norm(found[name] - exact[name]) / mx.linalg.norm(exact[name])
    assert error.item() < 4 * ROUNDING["float16"]


# ---------------------------------------------------------------------- what is kept in which precision
def test_frozen_weights_are_cast_once(tiny: Callable[..., ModelConfig], batch: Batch):
    """When the step is made, not in each; they do not move, and the trained ones stay in 32 bits."""
    model = Transformer(tiny())
    model.freeze()
    model.model.layers[1].unfreeze()
    step = Step(model, optim.SGD(learning_rate=1.0), None, precision="bfloat16")
    frozen = model.model.layers[0].mlp.up_proj.weight
    trained = model.model.layers[1].mlp.up_proj.weight
    assert (frozen.dtype, trained.dtype) == (mx.bfloat16, mx.float32)
    before = np.array(frozen.astype(mx.float32)), np.array(trained)
    step([batch], 1.0, KEY)
    after = model.model.layers[0].mlp.up_proj.weight, model.model.layers[1].mlp.up_proj.weight
    assert (after[0].dtype, after[1].dtype) == (mx.bfloat16, mx.float32)
    assert np.array_equal(np.array(after[0].astype(mx.float32)), before[0])
    assert not np.array_equal(np.array(after[1]), before[1])


def test_prepare_leaves_integers_and_what_float32_freezes():
    model = nn.QuantizedLinear(64, 8, bits=4)
    model.freeze()
    packed = model.weight.dtype
    prepare(model, "float32")
    assert model.scales.dtype == mx.float32
    model.set_dtype(mx.float16)
    prepare(model, "float32")
    assert model.scales.dtype == mx.float16  # nothing to be gained
    prepare(model, "bfloat16")
    assert (model.weight.dtype, model.scales.dtype) == (packed, mx.bfloat16)


def test_weights_that_come_in_16_bits_are_trained_in_32(tiny: Callable[..., ModelConfig], batch: Batch):
    """A rate so small that 16 bits would not notice."""
    model = Transformer(tiny())
    model.set_dtype(mx.bfloat16)
    before = np.array(model.model.embed_tokens.weight.astype(mx.float32))
    step = Step(model, optim.SGD(learning_rate=1.0), None, precision="bfloat16")
    step([batch], 1e-7, KEY)
    after = model.model.embed_tokens.weight
    assert after.dtype == mx.float32
    assert not np.array_equal(np.array(after), before)
    assert np.array_equal(np.array(after.astype(mx.bfloat16).astype(mx.float32)), before)


@pytest.mark.usefixtures("eager")
def test_16_bits_take_less_memory(tiny: Callable[..., ModelConfig], dice: np.random.Generator):
    """At the peak of a step, masters and all."""
    config = tiny(hidden_size=64, intermediate_size=256, context=64)
    batch = Batch(dice.integers(0, 40, (8, 65)).astype(np.int32), np.ones((8, 64), np.float32))
    peaks = {}
    for precision in ("float32", *NARROW):
        gc.collect()
        before = mx.get_active_memory()
        step = Step(Transformer(config), optim.AdamW(learning_rate=0.0), None, precision=precision)
        step.lanes = [mx.new_stream(mx.default_device())]  # of several, the order is never the same
        step([batch], 0.0, KEY)
        mx.reset_peak_memory()
        step([batch], 0.0, KEY)
        peaks[precision] = mx.get_peak_memory() - before
        del step
    assert max(peaks["bfloat16"], peaks["float16"]) < 0.9 * peaks["float32"], peaks
