"""More tokens for a trained model: what it knew stays, and the new ones take no more than their share."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.models import Transformer
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.models.vocabulary import NOISE, resize_vocabulary
from tinytale_mlx.recipe import ModelConfig

KEY = mx.random.key(7)
IDS = mx.array([[1, 5, 39, 0, 17, 17, 8]])


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest, tiny: Callable[..., ModelConfig]) -> Transformer:
    """40 tokens; its rows have a mean and directions that are far from those of fresh ones."""
    made = Transformer(tiny(tie_embeddings=request.param), seed=3)
    for matrix in matrices(made):
        shape = mx.random.normal((32, 32), key=mx.random.key(1))
        matrix.weight = 0.3 + 10 * matrix.weight @ shape
    return made


def matrices(model: Transformer) -> list:
    return [model.model.embed_tokens, *([] if model.config.tie_embeddings else [model.lm_head])]


def test_old_tokens_are_what_they_were(model: Transformer) -> None:
    """Hidden states, logits and every array, to the last bit."""
    resized = resize_vocabulary(model, 45, KEY)
    assert mx.array_equal(resized.hidden(IDS), model.hidden(IDS))
    assert mx.array_equal(resized(IDS)[..., :40], model(IDS))
    old, new = dict(named_arrays(model.parameters())), dict(named_arrays(resized.parameters()))
    assert old.keys() == new.keys()
    for name, array in old.items():
        assert mx.array_equal(new[name][: len(array)], array), name
    assert resized.config == model.config.model_copy(update={"vocab_size": 45})
    assert model.config.vocab_size == 40
    assert len(model.model.embed_tokens.weight) == 40


def test_new_tokens_can_be_read_and_written(model: Transformer) -> None:
    resized = resize_vocabulary(model, 45, KEY)
    logits = resized(mx.array([[40, 44, 3]]))
    assert logits.shape == (1, 3, 45)
    assert bool(mx.isfinite(logits).all())


def test_new_tokens_take_no_more_than_their_share(model: Transformer) -> None:
    """Hewitt 2021: with the mean of all rows, n new tokens of V + n have a probability of at most n / (V + n)."""
    resized = resize_vocabulary(model, 50, KEY)
    taken = mx.softmax(resized(IDS), axis=-1)[..., 40:].sum(axis=-1)
    assert float(mx.std(model(IDS))) > 1  # the old logits do differ
    assert float(taken.max()) < 10 / 50 * 1.05


def test_new_rows_are_the_mean_with_noise_like_the_old_rows(model: Transformer) -> None:
    """4,000 rows show the mean, and the covariance of the old rows times the square of the noise."""
    resized = resize_vocabulary(model, 4040, KEY)
    for before, after in zip(matrices(model), matrices(resized), strict=True):
        old, new = np.array(before.weight), np.array(after.weight[40:])
        spread = old.std()
        assert np.abs(new.mean(0) - old.mean(0)).max() < 0.1 * NOISE * spread
        expected = np.cov(old.T, bias=True) * NOISE**2
        assert np.abs(np.cov(new.T) - expected).max() < 0.1 * np.abs(expected).max()


def test_new_rows_differ(model: Transformer) -> None:
    resized = resize_vocabulary(model, 43, KEY)
    for matrix in matrices(resized):
        rows = np.array(matrix.weight[40:])
        assert len(np.unique(rows, axis=0)) == 3
    if not model.config.tie_embeddings:
        first, second = matrices(resized)
        assert not mx.allclose(first.weight[40:], second.weight[40:])


def test_the_key_decides(model: Transformer) -> None:
    one, same, other = (resize_vocabulary(model, 43, key)(IDS) for key in (KEY, KEY, mx.random.key(8)))
    assert mx.array_equal(one, same)
    assert not mx.array_equal(one, other)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_16_bits_stay_16_bits(dtype: mx.Dtype, model: Transformer) -> None:
    """And the noise survives their rounding."""
    model.set_dtype(dtype)
    resized = resize_vocabulary(model, 42, KEY)
    assert {array.dtype for _, array in named_arrays(resized.parameters())} == {dtype}
    for before, after in zip(matrices(model), matrices(resized), strict=True):
        assert mx.array_equal(after.weight[:40], before.weight)
        assert not mx.array_equal(after.weight[40], after.weight[41])


def test_rows_that_no_token_has(model: Transformer) -> None:
    """They were only ever pushed away; a token that moves in starts like any other new one."""
    for matrix in matrices(model):
        matrix.weight[36:] = 1000.0
    resized = resize_vocabulary(model, 40, KEY, used=36)
    assert mx.array_equal(resized(IDS % 36)[..., :36], model(IDS % 36)[..., :36])
    for matrix in matrices(resized):
        assert float(mx.abs(matrix.weight[36:]).max()) < 10
    assert resize_vocabulary(model, 44, KEY, used=36).config.vocab_size == 44


def test_same_size_changes_nothing(model: Transformer) -> None:
    assert mx.array_equal(resize_vocabulary(model, 40, KEY)(IDS), model(IDS))


def test_smaller_is_refused(model: Transformer) -> None:
    with pytest.raises(ValueError, match="a vocabulary of 40 tokens can't be made smaller, to 39"):
        resize_vocabulary(model, 39, KEY)
