"""The whole model: what its parts add up to, where it starts, and that no part is left out."""

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.generate import generate_step

from tinytale_mlx.generation.engine import generate_ids
from tinytale_mlx.models import Transformer
from tinytale_mlx.models.cache import KVCache
from tinytale_mlx.models.dropout import dropout
from tinytale_mlx.models.parameters import count_parameters
from tinytale_mlx.models.positions import sinusoids
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig
from tinytale_mlx.training.losses import next_token_loss

POSITIONS = ["rope", "learned", "sinusoidal", "t5", "alibi", "none"]
VARIANTS: dict[str, dict[str, Any]] = {
    **{positions: {"positions": positions} for positions in POSITIONS},
    "gqa": {"kv_heads": 2},
    "window": {"sliding_window": 5},
    "shared": {"layers": 4, "distinct_layers": 2},
    "post-norm": {"norm_placement": "post", "norm": "layernorm"},
    "gpt2": {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh"}
    | {"attention_bias": True, "mlp_bias": True},
    "rope-bias": {"attention_bias": True, "mlp_bias": True, "tie_embeddings": False},
    "nanochat": {"activation": "relu2", "qk_norm": True, "embedding_norm": True, "norm_weight": False}
    | {"tie_embeddings": False, "logit_softcap": 15.0},
    "qk-norm": {"qk_norm": True, "kv_heads": 1},
    "layernorm-no-bias": {"norm": "layernorm", "norm_bias": False, "activation": "gelu", "positions": "none"},
}


def louder(model: Transformer) -> Transformer:
    """Weights large enough that a mistake shows in the logits."""
    arrays = [(name, 6 * array if array.ndim == 2 else array) for name, array in tree_flatten(model.parameters())]
    model.update(tree_unflatten(arrays))
    return model


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def model(request: pytest.FixtureRequest, tiny: Callable[..., ModelConfig]) -> Transformer:
    return louder(Transformer(tiny(**request.param), seed=1))


@pytest.fixture
def ids(dice: np.random.Generator) -> mx.array:
    return mx.array(dice.integers(0, 40, (3, 12)))


def weights_of(model: Transformer) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in tree_flatten(model.parameters())}


def close(a: mx.array, b: mx.array, tolerance: float = 1e-4) -> bool:
    """Equal but for rounding, on the scale of the values."""
    return np.allclose(np.array(a), np.array(b), atol=tolerance * np.abs(np.array(b)).max())


# ---------------------------------------------------------------------- reading
@pytest.mark.parametrize("pieces", [[1] * 12, [7, 1, 4]], ids=str)
@pytest.mark.usefixtures("either_exp")
def test_cached_logits_are_the_uncached_ones(model: Transformer, ids: mx.array, pieces: list[int]):
    cache, start, logits = model.make_cache(), 0, []
    for piece in pieces:
        logits.append(model(ids[:, start : start + piece], cache))
        start += piece
    assert close(mx.concatenate(logits, axis=1), model(ids))


def test_a_row_does_not_depend_on_its_neighbours(model: Transformer, ids: mx.array):
    together = model(ids)
    for row in range(3):
        assert close(together[row], model(ids[row : row + 1])[0])


def test_the_future_changes_nothing(model: Transformer, ids: mx.array):
    other = mx.array(ids)
    other[:, 6] = (ids[:, 6] + 1) % 40
    before, after = np.array(model(ids)), np.array(model(other))
    assert np.array_equal(before[:, :6], after[:, :6])
    assert np.abs(before - after)[:, 6].max() > 1e-3


@pytest.mark.parametrize("positions", POSITIONS)
def test_order_matters_but_without_positions(positions: str, tiny: Callable[..., ModelConfig]):
    """The last of three tokens, the first two swapped: one layer without positions sees a set."""
    model = louder(Transformer(tiny(positions=positions, layers=1)))
    if positions == "t5":
        model.layers[0].self_attn.relative_bias.weight = mx.arange(128.0).reshape(32, 4)
    logits = model(mx.array([[5, 9, 3], [9, 5, 3]]))[:, -1]
    assert close(logits[0], logits[1]) == (positions == "none")


def test_the_sinusoids_are_those_of_the_paper():
    """Vaswani et al. 2017, with all sines before all cosines, as in their code."""
    table = np.array(sinusoids(mx.arange(3, 40), 8))
    for row, position in enumerate(range(3, 40)):
        for i in range(4):
            angle = position / 10000 ** (2 * i / 8)
            assert table[row, i] == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[row, 4 + i] == pytest.approx(math.cos(angle), abs=1e-5)
    assert sinusoids(mx.arange(2), 7).shape == (2, 7)


@pytest.mark.parametrize("offset", [0, 5])
def test_absolute_positions_are_added_to_the_embeddings(offset: int, tiny: Callable[..., ModelConfig], ids: mx.array):
    """The sinusoids to embeddings scaled by the root of their width, as in section 3.4 of the paper."""
    for positions in ("learned", "sinusoidal"):
        trunk = Transformer(tiny(positions=positions)).model
        x = trunk.embed_tokens(ids)
        if positions == "learned":
            expected = x + trunk.embed_positions.weight[offset : offset + 12]
        else:
            expected = math.sqrt(32) * x + sinusoids(mx.arange(offset, offset + 12), 32)
        assert close(trunk._embed(ids, offset), expected, 1e-6)


def test_learned_positions_end_at_the_context(tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny(positions="learned", context=8))
    assert model(mx.zeros((1, 8), mx.int32)).shape == (1, 8, 40)
    with pytest.raises(ValueError, match="9 tokens are more than the 8 positions"):
        model(mx.zeros((1, 9), mx.int32))
    cache = model.make_cache()
    model(mx.zeros((1, 5), mx.int32), cache)
    with pytest.raises(ValueError, match="9 tokens"):
        model(mx.zeros((1, 4), mx.int32), cache)


@pytest.mark.parametrize("positions", ["rope", "sinusoidal", "t5", "alibi", "none"])
def test_other_positions_go_on_beyond_it(positions: str, tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny(positions=positions, context=8))
    assert np.isfinite(np.array(model(mx.zeros((1, 20), mx.int32)))).all()


def test_a_vocabulary_is_needed(tiny: Callable[..., ModelConfig]):
    with pytest.raises(ValueError, match="comes from the tokenizer"):
        Transformer(tiny(vocab_size=None))


# ---------------------------------------------------------------------- how the parts are joined
@pytest.mark.parametrize("distinct", [1, 2])
def test_shared_layers_are_the_same_layers_again(distinct: int, tiny: Callable[..., ModelConfig], ids: mx.array):
    """A model of 4 layers of its own, with the blocks of the sharing one copied in, computes the same."""
    shared = louder(Transformer(tiny(layers=4, distinct_layers=distinct)))
    unrolled = Transformer(tiny(layers=4))
    for i, layer in enumerate(unrolled.layers):
        layer.update(shared.layers[i].parameters())
    for name in ("embed_tokens", "norm"):
        unrolled.model[name].update(shared.model[name].parameters())
    assert close(shared(ids), unrolled(ids))
    block = sum(array.size for _, array in tree_flatten(shared.layers[0].parameters()))
    assert count_parameters(unrolled) - count_parameters(shared) == (4 - distinct) * block
    assert len(shared.make_cache()) == len(shared.layers) == 4


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_a_block_is_two_residual_steps(placement: str, tiny: Callable[..., ModelConfig], ids: mx.array):
    model = louder(Transformer(tiny(norm_placement=placement, layers=1)))
    block = model.layers[0]
    x = model.model.embed_tokens(ids)
    if placement == "pre":
        x = x + block.self_attn(block.input_layernorm(x))
        x = model.model.norm(x + block.mlp(block.post_attention_layernorm(x)))
    else:
        x = block.input_layernorm(x + block.self_attn(x))
        x = block.post_attention_layernorm(x + block.mlp(x))
        assert "norm" not in model.model
    assert close(model.hidden(ids), x)


def test_tied_and_untied_heads(tiny: Callable[..., ModelConfig], ids: mx.array):
    tied, untied = Transformer(tiny()), Transformer(tiny(tie_embeddings=False))
    assert count_parameters(untied) - count_parameters(tied) == 40 * 32
    untied.model.update(tied.model.parameters())
    assert not close(untied(ids), tied(ids))
    untied.lm_head.weight = tied.model.embed_tokens.weight
    assert close(untied(ids), tied(ids))


def test_the_embedding_norm_makes_unit_rows(tiny: Callable[..., ModelConfig], ids: mx.array):
    plain, normed = Transformer(tiny()), Transformer(tiny(embedding_norm=True))
    assert weights_of(plain).keys() == weights_of(normed).keys()
    x = np.array(plain.model.embed_tokens(ids), np.float64)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    assert np.allclose(np.array(normed.model._embed(ids, 0)), expected, atol=1e-5)


def test_a_soft_cap_bounds_the_logits_and_keeps_their_order(tiny: Callable[..., ModelConfig], ids: mx.array):
    free, capped = Transformer(tiny()), Transformer(tiny(logit_softcap=2.0))
    for model in (free, capped):
        model.model.norm.weight = mx.full((32,), 20.0)
    logits, bounded = np.array(free(ids), np.float64), np.array(capped(ids), np.float64)
    assert np.abs(logits).max() > 4
    assert np.abs(bounded).max() <= 2
    assert np.allclose(bounded, 2 * np.tanh(logits / 2), atol=1e-4)


def test_logits_of_the_last_hidden_state_alone(model: Transformer, ids: mx.array):
    assert close(model.logits(model.hidden(ids)[:, -1]), model(ids)[:, -1])


# ---------------------------------------------------------------------- gradients
@pytest.mark.usefixtures("either_exp")
def test_every_parameter_has_a_gradient(model: Transformer, dice: np.random.Generator):
    """But a key's bias, where it adds the same to all scores of a query, which a softmax does not see."""
    tokens = mx.array(dice.integers(0, 40, (3, 13)))

    def loss(parameters: dict) -> mx.array:
        model.update(parameters)
        return next_token_loss(model(tokens[:, :-1]), tokens, mx.ones((3, 12)))

    gradients = {name: np.array(g) for name, g in tree_flatten(mx.grad(loss)(model.trainable_parameters()))}
    assert gradients.keys() == weights_of(model).keys()
    largest = {name: np.abs(gradient).max() for name, gradient in gradients.items()}
    invisible = model.config.positions != "rope" and not model.config.qk_norm
    for name, size in largest.items():
        if name.endswith("k_proj.bias") and invisible:
            assert size < 1e-3
        else:
            assert size > 1e-3, name


def test_the_gradient_of_the_loss_is_its_slope(model: Transformer, dice: np.random.Generator):
    """Along one random direction through all parameters at once."""
    tokens = mx.array(dice.integers(0, 40, (3, 13)))
    start = weights_of(model)
    direction = {name: dice.normal(size=w.shape) * (np.abs(w).mean() + 1e-2) for name, w in start.items()}

    def loss(parameters: dict) -> mx.array:
        model.update(parameters)
        return next_token_loss(model(tokens[:, :-1]), tokens, mx.ones((3, 12)))

    def at(step: float) -> float:
        moved = [(n, mx.array((w + step * direction[n]).astype(np.float32))) for n, w in start.items()]
        return loss(tree_unflatten(moved)).item()

    gradients = mx.grad(loss)(tree_unflatten([(name, mx.array(w)) for name, w in start.items()]))
    expected = sum((np.array(g, np.float64) * direction[name]).sum() for name, g in tree_flatten(gradients))
    h = 1e-3
    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert slope == pytest.approx(expected, rel=0.02, abs=0.5)


# ---------------------------------------------------------------------- where the weights start
def deviations(config: ModelConfig) -> dict[str, float]:
    return {name: float(w.std()) for name, w in weights_of(Transformer(config)).items() if w.ndim == 2}


WIDE = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 300, "layers": 8}


@pytest.mark.parametrize("init", ["normal", "fan_in"])
@pytest.mark.parametrize("residual_init", ["scaled", "same", "zero"])
def test_standard_deviations(init: str, residual_init: str, tiny: Callable[..., ModelConfig]):
    config = tiny(**WIDE, init=init, residual_init=residual_init, init_std=0.05, tie_embeddings=False)
    for name, deviation in deviations(config).items():
        inputs = 128 if "down_proj" in name else 64
        expected = 0.05 if init == "normal" else inputs**-0.5
        if ("o_proj" in name or "down_proj" in name) and residual_init != "same":
            expected = 0.0 if residual_init == "zero" else 0.05 / math.sqrt(2 * 8)
        assert deviation == pytest.approx(expected, rel=0.05), name


def test_vectors_start_at_zero_and_one(tiny: Callable[..., ModelConfig]):
    config = tiny(norm="layernorm", attention_bias=True, mlp_bias=True, qk_norm=True)
    for name, weight in weights_of(Transformer(config)).items():
        if weight.ndim == 1:
            assert np.unique(weight).tolist() == [0.0 if name.endswith("bias") else 1.0], name


def test_the_seed_alone_decides(tiny: Callable[..., ModelConfig]):
    config = tiny(attention_bias=True, mlp_bias=True, norm="layernorm", positions="t5")
    mx.random.seed(1)
    one = weights_of(Transformer(config, seed=3))
    mx.random.seed(2)
    same, other = weights_of(Transformer(config, seed=3)), weights_of(Transformer(config, seed=4))
    for name, weight in one.items():
        assert np.array_equal(weight, same[name]), name
        assert (weight.ndim == 1) == np.array_equal(weight, other[name]), name
    matrices = [w[:8, :8] for w in one.values() if w.ndim == 2]
    assert len({matrix.tobytes() for matrix in matrices}) == len(matrices)  # none drawn from another's key


# ---------------------------------------------------------------------- dropout
DROPOUTS = ["embedding_dropout", "attention_dropout", "residual_dropout"]


@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropout_is_a_function_of_its_key(kind: str, tiny: Callable[..., ModelConfig], ids: mx.array):
    plain = louder(Transformer(tiny()))
    model = louder(Transformer(tiny(**{kind: 0.3})))
    expected = np.array(plain(ids))
    assert np.array_equal(np.array(model(ids)), expected)  # no key, no dropout
    assert np.array_equal(np.array(plain(ids, key=mx.random.key(0))), expected)  # no rate, neither
    one = np.array(model(ids, key=mx.random.key(0)))
    assert np.array_equal(one, np.array(model(ids, key=mx.random.key(0))))
    assert not np.allclose(one, np.array(model(ids, key=mx.random.key(1))), atol=1e-3)
    assert not np.allclose(one, expected, atol=1e-3)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_expectation(rate: float):
    x = np.array(dropout(mx.full((400, 500), 3.0), rate, mx.random.key(0)), np.float64)
    kept = x[x != 0]
    assert np.allclose(kept, 3 / (1 - rate), rtol=1e-6)
    assert len(kept) / x.size == pytest.approx(1 - rate, abs=6 * math.sqrt(rate * (1 - rate) / x.size))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_dropout_keeps_the_dtype(dtype: mx.Dtype):
    assert dropout(mx.ones((4, 4), dtype), 0.5, mx.random.key(0)).dtype == dtype


def test_only_what_is_added_to_the_residual_stream_is_dropped(tiny: Callable[..., ModelConfig]):
    """Where attention and feed-forward add zero, dropping changes nothing."""
    model = Transformer(tiny(residual_dropout=0.5, residual_init="zero"))
    ids = mx.zeros((1, 4), mx.int32)
    assert np.array_equal(np.array(model(ids, key=mx.random.key(0))), np.array(model(ids)))
    model = louder(Transformer(tiny(residual_dropout=0.5)))
    assert not np.allclose(np.array(model(ids, key=mx.random.key(0))), np.array(model(ids)), atol=1e-3)


def test_shared_layers_drop_each_for_itself(tiny: Callable[..., ModelConfig], dice: np.random.Generator):
    """The same block twice, on the same input, with the keys that the trunk gives it."""
    model = Transformer(tiny(residual_dropout=0.5, distinct_layers=1))
    x = mx.array(dice.normal(size=(1, 8, 32)).astype(np.float32))
    given: list[np.ndarray] = []
    block = model.layers[0]
    model.model.layers = [lambda h, cache, key, *_: given.append(np.array(block(x, cache, key))) or h]
    model(mx.zeros((1, 8), mx.int32), key=mx.random.key(0))
    assert len(given) == 2
    assert not np.allclose(*given, atol=1e-4)


# ---------------------------------------------------------------------- 16 bits
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_16_bit_logits_are_about_the_same(model: Transformer, ids: mx.array, dtype: mx.Dtype):
    expected = model(ids)
    model.set_dtype(dtype)
    logits = model(ids)
    assert logits.dtype == dtype
    assert close(logits.astype(mx.float32), expected, 0.1)


# ---------------------------------------------------------------------- the cache, and mlx-lm
def test_the_cache_grows_by_whole_steps_and_forgets_nothing(dice: np.random.Generator):
    cache, everything = KVCache(), []
    for length in (KVCache.STEP - 2, 1, 1, 1, 2 * KVCache.STEP, 5):
        keys = dice.normal(size=(2, 3, length, 4)).astype(np.float32)
        everything.append(keys)
        k, v = cache.update_and_fetch(mx.array(keys), mx.array(-keys))
        expected = np.concatenate(everything, axis=2)
        assert cache.offset == expected.shape[2]
        assert np.array_equal(np.array(k), expected)
        assert np.array_equal(np.array(v), -expected)
        assert cache.keys is not None
        assert cache.keys.shape[2] == math.ceil(cache.offset / KVCache.STEP) * KVCache.STEP


def test_trimming_the_cache_goes_back_in_time(model: Transformer, ids: mx.array):
    cache = model.make_cache()
    model(ids, cache)
    assert [layer.trim(5) for layer in cache] == [5] * model.config.layers
    assert {layer.offset for layer in cache} == {7}
    other = (ids[:, 7:] + 1) % 40
    again = model(other, cache)
    assert close(again, model(mx.concatenate([ids[:, :7], other], axis=1))[:, 7:])
    assert cache[0].trim(100) == 12
    assert cache[0].offset == 0


def test_mlx_lm_generates_with_our_model(model: Transformer):
    """Its generator and ours, each with our cache, find the same greedy continuation."""
    prompt = [3, 1, 4, 1, 5, 9, 2]
    theirs = [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=12, prefill_step_size=3)]
    settings = GenerateRecipe(max_new_tokens=12, temperature=0.0)
    assert list(generate_ids(model, prompt, settings, mx.random.key(0))) == theirs
