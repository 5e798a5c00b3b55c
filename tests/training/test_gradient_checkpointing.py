"""Blocks that are computed again on the way back: the same gradients, in less memory."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.models import Transformer
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.models.transformer import Recomputed
from tinytale_mlx.recipe import ModelConfig
from tinytale_mlx.training.losses import token_loss

Gradients = dict[str, np.ndarray]
DROPOUT = {"residual_dropout": 0.3, "embedding_dropout": 0.1, "attention_dropout": 0.2}
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": DROPOUT,
    "post-norm": {**DROPOUT, "norm_placement": "post", "norm": "layernorm", "positions": "learned"},
    "shared": {**DROPOUT, "layers": 4, "distinct_layers": 2},
    "relative-bias": {"positions": "t5", "qk_norm": True, "tie_embeddings": False, "attention_bias": True},
    "no-weights": {"norm_weight": False},
}


def arrays_of(dice: np.random.Generator, segments: bool) -> list[mx.array | None]:
    begins = np.sort(dice.permuted(np.tile(np.arange(1, 13), (4, 1)), axis=1)[:, :2])
    documents = (np.arange(13) >= begins[..., None]).sum(axis=1).astype(np.int32)
    tokens, weights = dice.integers(0, 40, (4, 13)).astype(np.int32), dice.choice([0.0, 1.0], (4, 12))
    return [mx.array(tokens), mx.array(weights.astype(np.float32)), mx.array(documents) if segments else None]


def gradients_of(model: Transformer, arrays: list[mx.array | None], compiled: bool) -> tuple[float, Gradients]:
    def both(key: mx.array) -> tuple[mx.array, dict]:
        def loss(parameters: dict) -> mx.array:
            model.update(parameters)
            return token_loss(model, arrays, key)[0]

        parameters = model.trainable_parameters()
        result = mx.value_and_grad(loss)(parameters)
        model.update(parameters)
        return result

    nats, gradients = (mx.compile(both, inputs=[model.state]) if compiled else both)(mx.random.key(3))
    return float(nats), {name: np.array(g, np.float64) for name, g in named_arrays(gradients)}


def assert_equal(ours: Gradients, plain: Gradients) -> None:
    """Elementwise, to 1e-5 of the largest element of each array."""
    assert ours.keys() == plain.keys()
    for name, g in plain.items():
        assert np.abs(ours[name] - g).max() <= 1e-5 * np.abs(g).max() + 1e-12, name


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("what", ["attention", "block"])
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS.keys())
def test_the_gradients_are_the_same(
    changes: dict[str, Any], what: Recomputed, compiled: bool, tiny: Callable[..., ModelConfig],
    dice: np.random.Generator,
):  # fmt: skip
    """With dropout on: what is computed again draws the same masks. With documents that do not see each other."""
    arrays = arrays_of(dice, segments="positions" not in changes)
    model = Transformer(tiny(**changes), seed=1)
    nats, plain = gradients_of(model, arrays, compiled)
    for every in (1, 2):
        model.recompute(what, every)
        again, ours = gradients_of(model, arrays, compiled)
        assert again == pytest.approx(nats, rel=1e-6)
        assert_equal(ours, plain)


def test_frozen_parameters_get_no_gradients(tiny: Callable[..., ModelConfig], dice: np.random.Generator):
    arrays, model = arrays_of(dice, segments=False), Transformer(tiny(), seed=1)
    model.freeze()
    model.layers[0].mlp.unfreeze()
    model.layers[1].self_attn.q_proj.unfreeze()
    _, plain = gradients_of(model, arrays, compiled=False)
    model.recompute("block")
    _, ours = gradients_of(model, arrays, compiled=False)
    assert len(plain) == 4
    assert_equal(ours, plain)


def test_the_model_keeps_its_arrays(tiny: Callable[..., ModelConfig], dice: np.random.Generator):
    """What is differentiated goes into the modules for a moment, and out again."""
    model = Transformer(tiny())
    model.recompute("block")
    before = {name: id(array) for name, array in named_arrays(model.parameters())}
    gradients_of(model, arrays_of(dice, segments=False), compiled=False)
    assert {name: id(array) for name, array in named_arrays(model.parameters())} == before


def test_reading_with_a_cache_is_as_before(tiny: Callable[..., ModelConfig]):
    model, ids = Transformer(tiny(), seed=1), mx.array([[3, 1, 4, 1, 5]])
    expected = np.array(model(ids))
    model.recompute("block")
    cache = model.make_cache()
    pieces = [model(ids[:, i : i + 1], cache) for i in range(5)]
    assert np.allclose(np.array(mx.concatenate(pieces, axis=1)), expected, atol=1e-5)
    assert cache[0].offset == 5


def counted(run: Callable[[], Any]) -> int:
    """Bytes at the peak, above what is there before."""
    mx.clear_cache()
    before, _ = mx.get_active_memory(), mx.reset_peak_memory()
    run()
    return mx.get_peak_memory() - before


def test_each_switch_saves_memory(dice: np.random.Generator):
    """Of the peak: attention only, less than whole blocks; every second block, less than every one."""
    config = ModelConfig(hidden_size=32, layers=12, heads=4, intermediate_size=64, context=128, vocab_size=16)
    model = Transformer(config)
    mx.eval(model.parameters())
    tokens = mx.array(dice.integers(0, 16, (4, 129)).astype(np.int32))
    arrays: list[mx.array | None] = [tokens, mx.ones((4, 128))]
    peaks = {}
    choices: list[tuple[Recomputed, int]] = [("none", 1), ("attention", 1), ("block", 2), ("block", 1)]
    for switches in choices:
        model.recompute(*switches)
        peaks[switches] = counted(lambda: gradients_of(model, arrays, compiled=False))
    plain = peaks["none", 1]
    assert plain < 25e6  # 36 MB, were scores, activations and norms kept
    assert peaks["block", 1] < 0.8 * plain
    assert peaks["block", 1] < 0.9 * peaks["block", 2] < 0.9 * 0.95 * plain
    assert peaks["block", 1] < peaks["attention", 1] < 0.95 * plain
