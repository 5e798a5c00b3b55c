"""A draft changes the speed, and nothing of the text."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.generation.engine import generate_ids
from tinytale_mlx.generation.prompt_cache import PromptCache
from tinytale_mlx.generation.sampling import Sampler
from tinytale_mlx.generation.speculative import GUESSES, Draft, ModelDraft, NgramDraft
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig

KEY = mx.random.key(3)
GREEDY = GenerateRecipe(temperature=0.0, max_new_tokens=40)
WARM = GenerateRecipe(temperature=1.0, top_p=0.9, max_new_tokens=40)


@pytest.fixture
def make(tiny: Callable[..., ModelConfig]) -> Callable[..., Transformer]:
    def model(seed: int = 6, **changes) -> Transformer:
        return Transformer(tiny(**{"init_std": 0.3, "tie_embeddings": False, "context": 60, **changes}), seed)

    return model


class Counting:
    """A draft, with the number of its rounds."""

    def __init__(self, draft: Draft):
        self._draft, self.rounds = draft, 0

    def check(self, model: Transformer) -> None:
        self._draft.check(model)

    def guess(self, ids, keys: mx.array, sampler: Sampler) -> mx.array:
        self.rounds += 1
        return self._draft.guess(ids, keys, sampler)


@pytest.mark.parametrize("positions", ["rope", "learned", "sinusoidal", "t5", "alibi", "none"])
@pytest.mark.parametrize("settings", [GREEDY, WARM], ids=["greedy", "warm"])
def test_the_text_is_the_one_without_a_draft(make: Callable[..., Transformer], positions: str, settings):
    """With a draft that is never right, one that is now and then, and one that always is; beyond the context too."""
    model, other = make(positions=positions, context=32), make(seed=1, layers=1, context=24)
    plain = list(generate_ids(model, [5, 9, 3, 9], settings, KEY))
    assert len(plain) == 40
    for draft in (ModelDraft(other), NgramDraft(), ModelDraft(model)):
        assert list(generate_ids(model, [5, 9, 3, 9], settings, KEY, draft=draft)) == plain


@pytest.mark.parametrize("settings", [GREEDY, WARM], ids=["greedy", "warm"])
def test_a_model_is_its_own_best_draft(make: Callable[..., Transformer], settings):
    """All guesses are right, also of sampled text: the draft draws with the same randomness."""
    model = make()
    draft = Counting(ModelDraft(model))
    ids = list(generate_ids(model, [5, 9, 3], settings, KEY, draft=draft))
    assert len(ids) == 40
    assert draft.rounds == 40 / (GUESSES + 1)


def test_a_text_that_repeats_itself_is_guessed(make: Callable[..., Transformer]):
    draft, plain = NgramDraft(), Sampler(GREEDY)
    keys = mx.zeros((3, 2), mx.uint32)
    assert draft.guess([1, 2, 3, 4, 5, 1, 2], keys, plain).tolist() == [3, 4, 5]
    assert draft.guess([7, 2, 3, 1, 2, 4, 5, 6, 1, 2], keys, plain).tolist() == [4, 5, 6]  # the longest tail counts
    assert draft.guess([1, 2, 8, 1, 2, 9, 1, 2], keys, plain)[0].item() == 9  # and the latest
    assert draft.guess([1, 2, 3], keys, plain).tolist() == [0, 0, 0]
    model = make()
    counting = Counting(NgramDraft())
    ids = list(generate_ids(model, [5, 9, 3], GREEDY, KEY, draft=counting))
    if len(set(ids[-10:])) < 4:  # it does go in circles
        assert counting.rounds < 40


@pytest.mark.parametrize("size", [-1, 1])
def test_a_draft_with_another_vocabulary_is_refused(make: Callable[..., Transformer], size: int):
    """Its guesses would be ids that mean something else, or nothing."""
    model, draft = make(vocab_size=30), ModelDraft(make(vocab_size=30 + size))
    with pytest.raises(UserError, match="they need the same tokenizer"):
        next(generate_ids(model, [5, 9], GREEDY, KEY, draft=draft))


def test_it_stops_where_it_should(make: Callable[..., Transformer]):
    model = make()
    plain = list(generate_ids(model, [5, 9], WARM, KEY))
    stop = plain[7]
    expected = plain[: plain.index(stop) + 1]
    for draft in (ModelDraft(model), NgramDraft()):
        assert list(generate_ids(model, [5, 9], WARM, KEY, {stop}, draft=draft)) == expected
    few = WARM.model_copy(update={"max_new_tokens": 7})
    assert list(generate_ids(model, [5, 9], few, KEY, draft=ModelDraft(model))) == plain[:7]


def test_a_prompt_cache_holds_what_was_written(make: Callable[..., Transformer]):
    """Also when the reader leaves in the middle of a round, of which some guesses were wrong."""
    model, draft = make(), ModelDraft(make(seed=1))
    plain = list(generate_ids(model, [5, 9], GREEDY, KEY))
    for taken in range(1, 12):
        cache = PromptCache()
        stream = generate_ids(model, [5, 9], GREEDY, KEY, cache=cache, draft=draft)
        assert [next(stream) for _ in range(taken)] == plain[:taken]
        stream.close()  # type: ignore[attr-defined]
        so_far = [5, 9, *plain[:taken]]
        assert cache.tokens == so_far[: len(cache.tokens)]
        rest = GREEDY.model_copy(update={"max_new_tokens": 10})
        assert list(generate_ids(model, so_far, rest, KEY, cache=cache)) == plain[taken : taken + 10]


def test_settings_that_look_back_do_without(make: Callable[..., Transformer]):
    model = make()
    settings = WARM.model_copy(update={"repetition_penalty": 1.5})
    draft = Counting(ModelDraft(model))
    assert list(generate_ids(model, [5], settings, KEY, draft=draft)) == list(generate_ids(model, [5], settings, KEY))
    assert draft.rounds == 0


def test_the_distribution_is_the_models(tiny: Callable[..., ModelConfig]):
    """The second and third token of many texts, drawn with a draft, against exact probabilities (chi-square)."""
    model = Transformer(tiny(vocab_size=5, init_std=0.5, tie_embeddings=False), seed=2)
    draft = ModelDraft(Transformer(tiny(vocab_size=5, init_std=0.5, tie_embeddings=False), seed=3))
    settings = GenerateRecipe(temperature=1.0, top_p=1.0, max_new_tokens=2)
    count, cache = 400, PromptCache()  # one cache, so that the step is compiled once
    pairs = [
        tuple(generate_ids(model, [1, 2], settings, mx.random.key(i), draft=draft, cache=cache)) for i in range(count)
    ]
    first = np.array(mx.softmax(model(mx.array([[1, 2]]))[0, -1]))
    exact = np.zeros((5, 5))
    for token in range(5):
        exact[token] = first[token] * np.array(mx.softmax(model(mx.array([[1, 2, token]]))[0, -1]))
    observed = np.zeros((5, 5))
    for a, b in pairs:
        observed[a, b] += 1
    keep = exact * count >= 3
    expected = np.append(exact[keep] * count, exact[~keep].sum() * count + 1e-9)
    seen = np.append(observed[keep], observed[~keep].sum())
    statistic = ((seen - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)
