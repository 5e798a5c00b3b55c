"""Learned prompts and prefixes: at first they act as the words that they begin as, and everything else goes on."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from tuned_models import IDS, MODELS, equal, gradients, make_llama, make_model, near, next_token_nats, trained_adapter

from tinytale_mlx.recipe.tuning import QuantizeRecipe, TuneRecipe
from tinytale_mlx.tuning.adapters import attach, new_adapter
from tinytale_mlx.tuning.prompt import initial_ids, new_cache
from tinytale_mlx.tuning.quantize import quantize, uniform

WORDS = [7, 3, 40, 11]
BEFORE = mx.array([WORDS, WORDS])


def soft(model: Any, method: str, length: int = 4, words: list[int] | None = WORDS) -> Any:
    settings = TuneRecipe(method=method, prompt_length=length)
    return attach(model, new_adapter(model, settings, mx.random.key(0), words))


# ---------------------------------------------------------------------- at first
def test_a_prompt_begins_as_its_words(any_model: Any) -> None:
    expected = any_model(mx.concatenate([BEFORE, IDS], axis=1))[:, 4:]
    assert equal(soft(any_model, "prompt").model(IDS), expected)


def test_a_prefix_begins_as_the_keys_and_values_of_its_words(any_model: Any) -> None:
    """To the bit what a cache that has read the words gives, and what reading them gives, up to rounding."""
    whole = any_model(mx.concatenate([BEFORE, IDS], axis=1))[:, 4:]
    cache = new_cache(any_model)
    any_model(BEFORE, cache=cache)
    read = any_model(IDS, cache=cache)
    tuned = soft(any_model, "prefix")
    found = tuned.model(IDS)
    assert near(found, whole)
    assert near(found, read, 1e-6)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_on_a_quantized_base(method: str) -> None:
    model = make_model()
    quantize(model, uniform(model, QuantizeRecipe(group_size=32)))
    expected = model(mx.concatenate([BEFORE, IDS], axis=1))[:, 4:]
    tuned = soft(model, method)
    assert near(tuned.model(IDS), expected)
    assert set(gradients(tuned.model)) == set(dict(tree_flatten(tuned.model.trainable_parameters())))


def test_words_are_repeated_or_cut_or_drawn() -> None:
    key = mx.random.key(0)
    assert initial_ids(48, 6, key, WORDS).tolist() == [7, 3, 40, 11, 7, 3]
    assert initial_ids(48, 2, key, WORDS).tolist() == [7, 3]
    drawn = initial_ids(48, 500, key, None)
    assert equal(drawn, initial_ids(48, 500, key, None))
    assert set(drawn.tolist()) == set(range(48))


# ---------------------------------------------------------------------- learning
@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_only_the_prompt_learns(any_model: Any, method: str) -> None:
    tuned = soft(any_model, method)
    found = gradients(tuned.model)
    assert {name.rsplit(".", 1)[-1] for name in found} == (
        {"prompt"} if method == "prompt" else {"prefix_keys", "prefix_values"}
    )
    assert all(float(mx.abs(g).max()) > 0 for g in found.values())


@pytest.mark.parametrize("name", ["ours", "mlx_lm"])
@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_gradients_against_finite_differences(method: str, name: str) -> None:
    tuned = attach(model := MODELS[name](), trained_adapter(model, method=method, prompt_length=3))
    arrays, found = dict(tree_flatten(tuned.model.trainable_parameters())), gradients(tuned.model)
    for path, array in arrays.items():
        direction = mx.random.normal(array.shape, key=mx.random.key(3))
        direction = direction / mx.linalg.norm(direction)
        sides = []
        for step in (1e-2, -1e-2):
            tuned.model.load_weights([(path, array + step * direction)], strict=False)
            sides.append(float(next_token_nats(tuned.model)))
        tuned.model.load_weights([(path, array)], strict=False)
        assert (sides[0] - sides[1]) / 2e-2 == pytest.approx(float((found[path] * direction).sum()), rel=0.02, abs=0.02)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_it_does_learn(method: str) -> None:
    model = make_model()
    tuned = soft(model, method)
    before = float(next_token_nats(tuned.model))
    for _ in range(20):
        for path, gradient in gradients(tuned.model).items():
            array = dict(tree_flatten(tuned.model.parameters()))[path]
            tuned.model.load_weights([(path, array - 0.05 * gradient)], strict=False)
    assert float(next_token_nats(tuned.model)) < 0.8 * before


# ---------------------------------------------------------------------- reading and writing text
@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_token_by_token_is_the_same(any_model: Any, method: str) -> None:
    """With a cache the prompt is read once, with the first piece."""
    tuned = attach(any_model, trained_adapter(any_model, method=method, prompt_length=5))
    whole, cache, pieces = tuned.model(IDS), tuned.model.make_cache() if hasattr(any_model, "make_cache") else None, []
    cache = cache or new_cache(any_model)
    for piece in (IDS[:, :3], IDS[:, 3:4], IDS[:, 4:]):
        pieces.append(tuned.model(piece, cache=cache))
    assert near(mx.concatenate(pieces, axis=1), whole)
    assert cache[0].offset == 5 + 8


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_a_first_piece_of_one_token(any_model: Any, method: str) -> None:
    tuned = attach(any_model, trained_adapter(any_model, method=method, prompt_length=5))
    cache = new_cache(any_model)
    first = tuned.model(IDS[:, :1], cache=cache)
    assert near(mx.concatenate([first, tuned.model(IDS[:, 1:], cache=cache)], axis=1), tuned.model(IDS))


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_hidden_states_and_logits_are_apart(method: str) -> None:
    tuned = attach(model := make_model(), trained_adapter(model, method=method))
    assert near(tuned.model.logits(tuned.model.hidden(IDS)), tuned.model(IDS), 1e-6)
    assert tuned.model.config is model.config
    assert tuned.model.head is not None
    assert len(tuned.model.layers) == 3


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_mlx_lm_s_generator_runs_it(method: str) -> None:
    tuned = attach(model := make_llama(), trained_adapter(model, method=method, prompt_length=5))
    prompt = IDS[0]
    steps = generate_step(prompt, tuned.model, max_tokens=8)
    ids = prompt.tolist()
    for token, _ in steps:
        assert int(token) == int(np.argmax(np.array(tuned.model(mx.array([ids]))[0, -1])))
        ids.append(int(token))
    assert len(ids) == 16


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_dropout_of_the_model_reaches_it(method: str) -> None:
    tuned = soft(make_model(residual_dropout=0.5), method)
    plain = tuned.model(IDS)
    assert not equal(tuned.model(IDS, key=mx.random.key(1)), plain)
    assert equal(tuned.model(IDS, key=mx.random.key(1)), tuned.model(IDS, key=mx.random.key(1)))


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_rows_of_several_texts_are_refused(method: str) -> None:
    tuned = soft(make_model(), method)
    with pytest.raises(ValueError, match="a learned prompt stands before one text per row"):
        tuned.model(IDS, segments=mx.zeros(IDS.shape, mx.int32))


def test_16_bits_stay_so() -> None:
    for method in ("prompt", "prefix"):
        model = make_model()
        model.set_dtype(mx.bfloat16)
        tuned = soft(model, method)
        assert tuned.model(IDS).dtype == mx.bfloat16
        assert {g.dtype for g in gradients(tuned.model).values()} == {mx.float32}
