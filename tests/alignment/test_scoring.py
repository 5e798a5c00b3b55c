"""Log-probabilities of responses: the same whatever stands behind them, beside them or before them in the batch."""

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.alignment.logprobs import masked_sum
from tinytale_mlx.alignment.preference_tuning import mismatched
from tinytale_mlx.alignment.rollout import batch_sampler, check_lengths, read, sample_responses
from tinytale_mlx.alignment.scoring import (
    Rows,
    in_micro_batches,
    last_places,
    lay_out,
    response_hidden,
    response_logps,
    response_tokens,
)
from tinytale_mlx.errors import UserError
from tinytale_mlx.generation.batch import generate_batch
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe
from tinytale_mlx.recipe.align import PolicyRecipe
from tinytale_mlx.training.losses import cross_entropy

EOS = 0
PROMPTS = [[1, 5, 9, 12], [7], [3, 3, 4]]
RESPONSES = [[8, 2, EOS], [11, 12, 13, 14, EOS], [EOS]]


def arrays(rows: Rows) -> Rows:
    return Rows(*map(mx.array, rows))


@pytest.fixture
def model(tiny) -> Transformer:
    model = Transformer(tiny(), seed=3)
    model.update({"model": {"embed_tokens": {"weight": 4 * model.model.embed_tokens.weight}}})
    return model


def alone(model: Transformer, prompt: list[int], response: list[int], temperature: float = 1.0) -> np.ndarray:
    """Without any padding, by the loss of training."""
    ids = mx.array([[*prompt, *response]])
    logits = model(ids[:, :-1]) / temperature
    return -np.array(cross_entropy(logits, ids[:, 1:])[0, len(prompt) - 1 :])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_every_token_is_scored_by_what_stands_before_it(model, temperature):
    rows = lay_out(PROMPTS, RESPONSES, 4, 5)
    found = np.array(response_logps(model, arrays(rows), temperature))
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        np.testing.assert_allclose(found[i, : len(response)], alone(model, prompt, response, temperature), atol=1e-5)
        assert not found[i, len(response) :].any()


@pytest.mark.parametrize("config", [{}, {"positions": "learned"}, {"positions": "alibi"}, {"sliding_window": 4}])
def test_padding_and_neighbours_change_nothing(tiny, config):
    model = Transformer(tiny(**config), seed=3)
    plain = np.array(response_logps(model, arrays(lay_out(PROMPTS, RESPONSES, 4, 5))))
    wide = lay_out(PROMPTS, RESPONSES, 9, 12)
    np.testing.assert_allclose(np.array(response_logps(model, arrays(wide)))[:, :5], plain, atol=1e-6)
    wild = np.where(np.arange(wide.ids.shape[1]) < wide.starts[:, None] + wide.mask.sum(1, keepdims=True), wide.ids, 39)
    found = np.array(response_logps(model, arrays(wide._replace(ids=wild.astype(np.int32)))))
    np.testing.assert_array_equal(found, np.array(response_logps(model, arrays(wide))))
    single = np.array(response_logps(model, arrays(lay_out(PROMPTS[1:2], RESPONSES[1:2], 4, 5))))
    np.testing.assert_allclose(single[0], plain[1], atol=1e-6)


def test_what_may_not_be_sampled_has_no_probability(model):
    rows = arrays(lay_out(PROMPTS, RESPONSES, 4, 5))
    assert (response_logps(model, rows, vocabulary=20) >= response_logps(model, rows)).all().item()
    every = [lay_out([[1]], [[token]], 1, 1) for token in range(20)]
    chances = [response_logps(model, arrays(rows), vocabulary=20).item() for rows in every]
    assert np.exp(chances).sum() == pytest.approx(1, abs=1e-5)


def test_places(model):
    rows = arrays(lay_out(PROMPTS, RESPONSES, 4, 5))
    ids = np.array(rows.ids)
    assert last_places(rows).tolist() == [6, 5, 3]
    assert [ids[i, place] for i, place in enumerate(last_places(rows).tolist())] == [EOS] * 3
    assert response_tokens(rows)[1].tolist() == RESPONSES[1]
    hidden = model.hidden(rows.ids)
    assert mx.array_equal(response_hidden(hidden, rows)[2], hidden[2, 2:7])


def test_a_prompt_loses_its_beginning_and_a_response_nothing():
    rows = lay_out([[1, 2, 3, 4]], [[5, EOS]], 2, 3)
    assert rows.ids.tolist() == [[3, 4, 5, EOS, 0]]
    assert rows.mask.tolist() == [[1, 1, 0]]
    for prompt, response in (([], [1]), ([1], [1, 2, 3, 4])):
        with pytest.raises(ValueError, match="row 0 has"):
            lay_out([prompt], [response], 2, 3)


def test_turns_of_others_do_not_count(model):
    """A response of several turns, in which the weights leave one out."""
    rows = arrays(lay_out([[1, 2]], [[3, 4, 5, EOS]], 2, 5, [[1, 0, 0, 1]]))
    plain = arrays(lay_out([[1, 2]], [[3, 4, 5, EOS]], 2, 5))
    found, every = response_logps(model, rows)[0], response_logps(model, plain)[0]
    assert found.tolist() == (every * mx.array([1, 0, 0, 1, 0])).tolist()
    assert last_places(rows).item() == 5


def test_micro_batches_cover_everything_once(model):
    rows = lay_out(PROMPTS * 3, RESPONSES * 3, 4, 5)
    whole = np.array(response_logps(model, arrays(rows)))
    for size in (1, 4, 9, 20):
        found = in_micro_batches(lambda *a: [response_logps(model, Rows(*a))], rows, size)[0]
        np.testing.assert_allclose(found, whole, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_what_was_sampled_is_as_likely_as_it_is_read(model, temperature):
    """The cache while sampling, and the whole row afterwards; and EOS is there, once, at the end."""
    settings = PolicyRecipe(prompt_tokens=4, response_tokens=9, temperature=temperature, micro_batch_size=4)
    found = sample_responses(model, PROMPTS, settings, batch_sampler(settings, {EOS}), {EOS}, mx.random.key(1), 10)
    logps = read(model, found.rows, settings, None)
    for row, (prompt, tokens) in enumerate(zip(found.prompts, found.tokens, strict=True)):
        np.testing.assert_allclose(logps[row, : len(tokens)], alone(model, prompt, tokens, temperature), atol=1e-4)
        assert found.ended[row] == (tokens[-1] == EOS)
        assert EOS not in tokens[:-1]
        assert found.rows.mask[row].sum() == len(tokens)
    assert 0 < found.ended.mean() < 1
    again = sample_responses(model, PROMPTS, settings, batch_sampler(settings, {EOS}), {EOS}, mx.random.key(1), 10)
    assert again.tokens == found.tokens


def test_what_is_read_is_what_the_cache_said(model):
    """The log-probabilities of the sampler, token by token, and those of reading the whole row at once."""
    how = GenerateRecipe(temperature=1.0, top_p=1.0, max_new_tokens=9)
    texts = generate_batch(model, PROMPTS, how, mx.random.key(1), {EOS}, None, 4, with_logprobs=True)
    rows = lay_out([text.prompt for text in texts], [text.tokens for text in texts], 4, 9)
    found = np.array(response_logps(model, arrays(rows)))
    for row, text in zip(found, texts, strict=True):
        np.testing.assert_allclose(row[: len(text.tokens)], text.logprobs, atol=1e-4)


def test_the_temperature_is_that_of_sampling(model):
    """Next to 0 nothing is drawn but the likeliest token; at 1 others are."""
    settings = PolicyRecipe(prompt_tokens=4, response_tokens=1, temperature=1e-4)
    best = model(mx.array([PROMPTS[0]]))[0, -1].argmax().item()
    cold = batch_sampler(settings, set())(model, PROMPTS[:1], 20, mx.random.key(0))
    warm = batch_sampler(PolicyRecipe(response_tokens=1), set())(model, PROMPTS[:1], 20, mx.random.key(0))
    assert cold == [[best]] * 20
    assert len({token for (token,) in warm}) > 5


def test_an_end_in_the_prompt_is_not_an_end(model):
    settings = PolicyRecipe(prompt_tokens=4, response_tokens=1)
    drawn = lambda *_: [[5]]  # noqa: E731
    found = sample_responses(model, [[1, EOS]], settings, drawn, {EOS}, mx.random.key(0))
    assert not found.ended[0]


def test_what_does_not_fit_into_the_context_is_refused(model):
    check_lengths(model, PolicyRecipe(prompt_tokens=14, response_tokens=10))
    with pytest.raises(UserError, match="more than the model's context of 24"):
        check_lengths(model, PolicyRecipe(prompt_tokens=15, response_tokens=10))


def test_everybody_gets_his_neighbours_response(model):
    rows = lay_out(PROMPTS, RESPONSES, 4, 5)
    expected = lay_out(PROMPTS, [*RESPONSES[1:], RESPONSES[0]], 4, 5)
    found = mismatched(rows)
    np.testing.assert_array_equal(found.mask, expected.mask)
    same = [
        np.array(masked_sum(response_logps(model, arrays(each)), mx.array(each.mask))) for each in (found, expected)
    ]
    np.testing.assert_allclose(*same, atol=1e-5)
