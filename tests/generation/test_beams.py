"""Beam search against trying every text there is."""

import itertools
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.generation.automaton import choices
from tinytale_mlx.generation.beams import Beam, beam_search
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig
from tinytale_mlx.tokenizers import ByteBPE

VOCABULARY, END, PROMPT = 5, 4, [0, 3, 1]


@pytest.fixture
def model(tiny: Callable[..., ModelConfig]) -> Transformer:
    """Untrained, and loud enough to have opinions; one of its six ids is beyond the vocabulary."""
    return Transformer(tiny(vocab_size=6, context=16, tie_embeddings=False, init_std=0.5), seed=1)


def exhaustive(model: Transformer, settings: GenerateRecipe) -> list[Beam]:
    """Every text of up to the limit, scored by reading it as a whole."""
    limit, found = settings.max_new_tokens, []
    for length in range(1, limit + 1):
        bodies = list(itertools.product(range(VOCABULARY - 1), repeat=length - 1))
        last = range(VOCABULARY) if length == limit else [END]
        texts = np.array([[*body, token] for body in bodies for token in last])
        rows = np.concatenate([np.tile(PROMPT, (len(texts), 1)), texts], axis=1)
        logits = np.array(model(mx.array(rows))[:, len(PROMPT) - 1 : -1, :VOCABULARY], np.float64)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        totals = np.take_along_axis(logprobs, texts[..., None], axis=-1).sum((1, 2))
        scores = totals / length**settings.length_penalty
        found += [Beam(*one, one[0][-1] == END) for one in zip(texts.tolist(), totals, scores, strict=True)]
    return sorted(found, key=lambda beam: -beam.score)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
def test_with_beams_enough_it_finds_the_best_of_all(model: Transformer, length_penalty: float):
    settings = GenerateRecipe(beams=256, max_new_tokens=4, length_penalty=length_penalty)
    best = exhaustive(model, settings)
    found = beam_search(model, PROMPT, settings, {END}, VOCABULARY)
    assert [beam.tokens for beam in found[:8]] == [beam.tokens for beam in best[:8]]
    assert [beam.score for beam in found[:8]] == pytest.approx([beam.score for beam in best[:8]], abs=1e-4)
    assert [beam.ended for beam in found[:8]] == [beam.ended for beam in best[:8]]
    assert len(best) == 256 + 85


def greedy(model: Transformer, count: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < count and END not in tokens:
        logits = model(mx.array([PROMPT + tokens]))[0, -1, :VOCABULARY]
        tokens.append(int(mx.argmax(logits).item()))
    return tokens


def test_a_few_beams_find_more_than_greedy(tiny: Callable[..., ModelConfig]):
    """Never a worse text, and for some models a better one."""
    gains = []
    for seed in range(8):
        model = Transformer(tiny(vocab_size=6, context=16, tie_embeddings=False, init_std=0.5), seed=seed)
        settings = GenerateRecipe(beams=4, max_new_tokens=4, length_penalty=1.0)
        scores = {tuple(beam.tokens): beam.score for beam in exhaustive(model, settings)}
        best = beam_search(model, PROMPT, settings, {END}, VOCABULARY)[0]
        assert best.score == pytest.approx(scores[tuple(best.tokens)], abs=1e-4)  # the caches follow their rows
        gains.append(best.score - scores[tuple(greedy(model, 4))])
    assert min(gains) > -1e-4
    assert max(gains) > 0.01


def test_length_penalty_prefers_longer_texts(model: Transformer):
    def length(penalty: float) -> int:
        settings = GenerateRecipe(beams=64, max_new_tokens=6, length_penalty=penalty)
        return len(beam_search(model, PROMPT, settings, {END}, VOCABULARY)[0].tokens)

    assert length(-1.0) < length(3.0) == 6


def test_rules_hold(model: Transformer):
    settings = GenerateRecipe(beams=4, max_new_tokens=6, min_new_tokens=5, no_repeat_ngram=2, logit_bias={2: -100.0})
    for beam in beam_search(model, PROMPT, settings, {END}, VOCABULARY):
        assert END not in beam.tokens[:5]
        assert 2 not in beam.tokens
        pairs = list(itertools.pairwise(PROMPT + beam.tokens))
        assert len(set(pairs)) == len(pairs)


def test_the_likeliest_of_some_choices(tiny: Callable[..., ModelConfig]):
    tokenizer = ByteBPE.train(["abab"], 264)
    eos = tokenizer.eos_id
    assert eos is not None
    model = Transformer(tiny(vocab_size=tokenizer.vocab_size, context=32, init_std=0.3))
    texts = ["yes", "no", "perhaps"]
    settings = GenerateRecipe(beams=8, max_new_tokens=20)
    found = beam_search(model, [20], settings, {eos}, None, choices(tokenizer, texts, {eos}))
    assert sorted(tokenizer.decode(beam.tokens) for beam in found) == sorted(texts)


def test_it_ends_with_the_context(model: Transformer):
    settings = GenerateRecipe(beams=2, max_new_tokens=50)
    assert {len(beam.tokens) for beam in beam_search(model, PROMPT, settings)} == {13}
    assert {len(beam.tokens) for beam in beam_search(model, PROMPT * 9, settings)} == {8}


def test_an_empty_prompt(model: Transformer):
    with pytest.raises(ValueError, match="nothing to continue"):
        beam_search(model, [], GenerateRecipe(beams=2))
