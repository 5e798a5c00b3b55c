"""The loss of a few tokens at a time: the same loss and gradients, without the logits of a whole batch."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.models import Transformer
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.recipe import ModelConfig
from tinytale_mlx.training.losses import chunked_loss, chunked_nats, next_token_loss, token_loss

HEADS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_embeddings": False},
    "softcap": {"logit_softcap": 3.0},
    "untied-softcap": {"tie_embeddings": False, "logit_softcap": 3.0},
}

pytestmark = pytest.mark.usefixtures("either_exp")


@pytest.fixture
def tokens(dice: np.random.Generator) -> mx.array:
    return mx.array(dice.integers(0, 40, (3, 14)).astype(np.int32))


@pytest.fixture
def weights(dice: np.random.Generator) -> mx.array:
    """Some of them zero, and a whole chunk of 5 as well."""
    array = dice.choice([0.0, 0.5, 1.0, 2.0], (3, 13)).astype(np.float32)
    array[0, :5] = 0
    return mx.array(array)


def loud(model: Transformer) -> Transformer:
    """With logits far from 0, so that the softmax matters."""
    model.head.update({"weight": 20 * model.head["weight"]})
    return model


def gradients_of(model: Transformer, arrays: list[mx.array], scale: float = 1.0, **chunks: int) -> tuple[float, dict]:
    def loss(parameters: dict) -> mx.array:
        model.update(parameters)
        return scale * token_loss(model, arrays, mx.random.key(0), **chunks)[0]

    parameters = model.trainable_parameters()
    nats, gradients = mx.value_and_grad(loss)(parameters)
    model.update(parameters)
    return float(nats), {name: np.array(g.astype(mx.float32)) for name, g in named_arrays(gradients)}


def assert_near(ours: dict, plain: dict, tolerance: float) -> None:
    assert ours.keys() == plain.keys()
    for name, g in plain.items():
        assert np.abs(ours[name] - g).max() <= tolerance * np.abs(g).max() + 1e-12, name


@pytest.mark.parametrize("chunk_tokens", [1, 5, 13, 39, 1000])
@pytest.mark.parametrize("changes", HEADS.values(), ids=HEADS.keys())
def test_the_same_loss_and_gradients(
    changes: dict[str, Any], chunk_tokens: int, tokens: mx.array, weights: mx.array, tiny: Callable[..., ModelConfig]
):
    """Also multiplied by something, as by a loss scale."""
    model = loud(Transformer(tiny(**changes), seed=1))
    nats, plain = gradients_of(model, [tokens, weights], 7.0)
    chunked, ours = gradients_of(model, [tokens, weights], 7.0, chunk_tokens=chunk_tokens)
    assert chunked == pytest.approx(nats, rel=1e-6)
    assert_near(ours, plain, 1e-5)


def test_evaluation_gets_the_same_loss(tokens: mx.array, weights: mx.array, tiny: Callable[..., ModelConfig]):
    model = loud(Transformer(tiny(), seed=1))
    hidden = model.hidden(tokens[:, :-1])
    expected = next_token_loss(model.logits(hidden), tokens, weights).item()
    for chunk in (4, 100):
        assert chunked_nats(model, hidden, tokens, weights, chunk).item() == pytest.approx(expected, rel=1e-6)
        assert chunked_loss(model, hidden, tokens, weights, chunk).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_frozen_head(compiled: bool, tokens: mx.array, weights: mx.array, tiny: Callable[..., ModelConfig]):
    """Gets no gradient, and hands on that of the hidden states."""
    model = loud(Transformer(tiny(), seed=1))
    model.head.freeze()
    hidden = model.hidden(tokens[:, :-1])

    def chunked(h: mx.array) -> mx.array:
        return chunked_loss(model, h, tokens, weights, 5)

    expected = np.array(mx.grad(lambda h: next_token_loss(model.logits(h), tokens, weights))(hidden))
    ours = np.array((mx.compile if compiled else lambda f: f)(mx.grad(chunked))(hidden))
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(expected).max() > 0.01


def test_the_head_keeps_its_weights(tokens: mx.array, weights: mx.array, tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny())
    before = model.head.weight
    mx.eval(chunked_loss(model, model.hidden(tokens[:, :-1]), tokens, weights, 5))
    assert model.head.weight is before


@pytest.mark.parametrize("ignored", [-100, 10**6])
def test_weight_zero_counts_for_nothing(
    ignored: int, tokens: mx.array, weights: mx.array, tiny: Callable[..., ModelConfig]
):
    model = Transformer(tiny(), seed=1)
    hidden = model.hidden(tokens[:, :-1])
    marked = mx.concatenate([tokens[:, :1], mx.where(weights > 0, tokens[:, 1:], ignored)], axis=1)
    for loss in (chunked_loss, chunked_nats):
        assert loss(model, hidden, marked, weights, 5).item() == loss(model, hidden, tokens, weights, 5).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(mx.bfloat16, 2e-2), (mx.float16, 3e-3)], ids=str)
def test_16_bits(
    dtype: mx.Dtype, tolerance: float, tokens: mx.array, weights: mx.array, tiny: Callable[..., ModelConfig]
):
    """Maths in float32: the loss is as good as the logits are, and no gradient is lost in float16."""
    exact = loud(Transformer(tiny(tie_embeddings=False), seed=1))
    exact.set_dtype(dtype)
    exact.set_dtype(mx.float32)  # rounded as the other is
    nats, expected = gradients_of(exact, [tokens, weights], chunk_tokens=5)
    exact.set_dtype(dtype)
    narrow, ours = gradients_of(exact, [tokens, weights], chunk_tokens=5)
    assert narrow == pytest.approx(nats, rel=tolerance)
    assert_near(ours, expected, 3 * tolerance)
    unlikely = expected["lm_head.weight"] != 0
    assert (ours["lm_head.weight"][unlikely] != 0).mean() > 0.99


def test_the_logits_of_a_batch_never_exist(dice: np.random.Generator):
    """4,096 logits per token, and 512 tokens: 8 MB, of which the plain loss needs three or more."""
    config = ModelConfig(hidden_size=8, layers=1, heads=1, intermediate_size=8, context=128, vocab_size=4096)
    model = Transformer(config)
    tokens = mx.array(dice.integers(0, 4096, (4, 129)).astype(np.int32))
    arrays = [tokens, mx.ones((4, 128))]
    hidden = model.hidden(tokens[:, :-1])
    mx.eval(model.parameters(), hidden)
    peaks = {}
    for name, run in {
        "plain": lambda: gradients_of(model, arrays),
        "chunked": lambda: gradients_of(model, arrays, chunk_tokens=16),
        "evaluation": lambda: chunked_nats(model, hidden, tokens, mx.ones((4, 128)), 16).item(),
    }.items():
        mx.clear_cache()
        before, _ = mx.get_active_memory(), mx.reset_peak_memory()
        run()
        peaks[name] = (mx.get_peak_memory() - before) / (4 * 512 * 4096)
    assert peaks["plain"] > 2
    assert peaks["chunked"] < 1
    assert peaks["evaluation"] < 0.5
