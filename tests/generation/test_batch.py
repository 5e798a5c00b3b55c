"""Many texts at once are the texts that each would be alone."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.generation import batch as batches
from tinytale_mlx.generation import memory as memories
from tinytale_mlx.generation.batch import Batch, Text, generate_batch, stream_batch
from tinytale_mlx.generation.engine import generate_ids, generate_tokens
from tinytale_mlx.generation.keys import position_keys, row_keys
from tinytale_mlx.generation.memory import Separate, Slots
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig

KEY = mx.random.key(3)
GREEDY = GenerateRecipe(temperature=0.0, max_new_tokens=20)
WARM = GenerateRecipe(temperature=1.0, top_p=0.9, max_new_tokens=20)
PROMPTS = [[7], [5, 9, 3, 9, 20, 1, 4], list(range(30)), [2, 3, 4], [11, 12]]
POSITIONS = ["rope", "learned", "sinusoidal", "t5", "alibi", "none"]


@pytest.fixture
def make(tiny: Callable[..., ModelConfig]) -> Callable[..., Transformer]:
    def model(**changes) -> Transformer:
        return Transformer(tiny(**{"init_std": 0.3, "tie_embeddings": False, **changes}), seed=6)

    return model


def texts(model, prompts=PROMPTS, settings=WARM, **options) -> list[list[int]]:
    return [text.tokens for text in generate_batch(model, prompts, settings, KEY, {5}, **options)]


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_batch_is_its_rows(make: Callable[..., Transformer], positions: str):
    """Greedy and drawn, with prompts and texts of different lengths, beyond the context (24) too."""
    model = make(positions=positions)
    alone = [list(generate_ids(model, prompt, GREEDY, KEY, {5})) for prompt in PROMPTS]
    assert texts(model, settings=GREEDY) == alone
    drawn = texts(model)
    assert drawn == texts(model, batch_size=1) == texts(model, batch_size=2)
    assert len({len(text) for text in drawn}) > 1 or any(text[-1] != 5 for text in drawn)


def test_the_first_row_is_the_single_text(make: Callable[..., Transformer]):
    model = make()
    assert texts(model)[0] == list(generate_ids(model, PROMPTS[0], WARM, KEY, {5}))
    assert texts(model)[1] == texts(model, [[1], PROMPTS[1]])[1]


@pytest.mark.parametrize("changes", [{"sliding_window": 5}, {"kv_heads": 2}, {"kv_heads": 1, "qk_norm": True}], ids=str)
def test_of_other_shapes_too(make: Callable[..., Transformer], changes):
    model = make(**changes)
    assert texts(model) == texts(model, batch_size=1) == texts(model, batch_size=2)


def test_several_samples_of_one_prompt_read_it_once(make: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch):
    model = make(context=100)
    long = list(range(40))
    expected = texts(model, [long, long, long, [3], [3], [3]])
    read: list[list[list[int]]] = []
    original = Slots._read

    def note(self: Slots, prompts: list[list[int]], row: int):
        read.append(prompts)
        return original(self, prompts, row)

    monkeypatch.setattr(Slots, "_read", note)
    for size in (1, 2, 6):
        read.clear()
        assert texts(model, [long, [3]], samples_per_prompt=3, batch_size=size) == expected
        assert sum(len(ids) for prompts in read for ids in prompts) == 39
    assert len({tuple(text) for text in expected}) > 3


def test_a_row_that_ends_makes_room(make: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch):
    """Seven texts in three rows take about the steps of the longest third, not of three batches."""
    model, steps = make(context=100), []
    original = Slots.forward
    monkeypatch.setattr(Slots, "forward", lambda self, *a: steps.append(len(self.lengths)) or original(self, *a))
    lengths = [20, 3, 4, 5, 3, 2, 2]
    memory = Slots(model, 3)
    batch = Batch(model, memory, WARM)
    keys = row_keys(KEY, range(7))
    for number, length in enumerate(lengths):
        batch.waiting.append(Text([number + 1], keys[number], length, number))
    done = []
    while found := batch.advance():
        done += [token.text for token in found if token.text.done]
    assert sorted(text.number for text in done) == list(range(7))
    assert [len(text.tokens) for text in sorted(done, key=lambda t: t.number)] == lengths
    assert len(steps) == 20
    assert steps[-1] == 1  # and free rows are not computed


def test_texts_come_as_they_end(make: Callable[..., Transformer]):
    model = make(context=100)
    numbers = [text.number for text in stream_batch(model, PROMPTS, WARM, KEY, {5})]
    assert sorted(numbers) == list(range(5))
    assert [text.number for text in generate_batch(model, PROMPTS, WARM, KEY, {5})] == list(range(5))


def test_a_text_may_be_ended_from_outside(make: Callable[..., Transformer]):
    model = make(context=100)
    expected = texts(model, PROMPTS[:2])
    memory = Slots(model, 2)
    batch = Batch(model, memory, WARM, {5})
    both = [Text(list(p), key, 20, i) for i, (p, key) in enumerate(zip(PROMPTS, row_keys(KEY, [0, 1]), strict=False))]
    batch.waiting.extend(both)
    while found := batch.advance():
        for token in found:
            if token.text.number == 0 and len(token.text.tokens) == 2:
                batch.end(token.text)
    assert both[0].tokens == expected[0][:2]
    assert both[1].tokens == expected[1]


def test_why_a_text_ended(make: Callable[..., Transformer]):
    for text in generate_batch(make(), PROMPTS, WARM, KEY, {5}):
        assert text.finish_reason == ("stop" if text.tokens[-1] == 5 else "length")
        assert (len(text.tokens) == 20) or text.tokens[-1] == 5
        assert 5 not in text.tokens[:-1]


def test_log_probabilities_are_the_models_own(make: Callable[..., Transformer]):
    """Of the tokens that were drawn at another temperature, from a part of the vocabulary."""
    model = make(context=100)
    settings = GenerateRecipe(temperature=0.5, top_p=0.8, max_new_tokens=10)
    for text in generate_batch(model, PROMPTS, settings, KEY, with_logprobs=True):
        logits = model(mx.array([text.ids()]))[0, len(text.prompt) - 1 : -1]
        expected = (logits - mx.logsumexp(logits, axis=-1, keepdims=True))[mx.arange(10), mx.array(text.tokens)]
        assert np.allclose(text.logprobs, np.array(expected), atol=1e-4)
    token = next(generate_tokens(model, [3], settings, KEY))
    assert token.logprobs.shape == (40,)
    assert float(mx.exp(token.logprobs).sum()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("settings", [
    {"repetition_penalty": 1.7}, {"no_repeat_ngram": 2}, {"min_new_tokens": 12}, {"frequency_penalty": 1.0}
], ids=str)  # fmt: skip
def test_rules_that_look_back_look_at_their_own_row(make: Callable[..., Transformer], settings):
    model = make()
    changed = WARM.model_copy(update=settings)
    assert texts(model, settings=changed) == texts(model, settings=changed, batch_size=1)
    assert texts(model, settings=changed) == texts(model, settings=changed, batch_size=2)
    assert texts(model, settings=changed) != texts(model)
    if "no_repeat_ngram" in settings:
        for prompt, text in zip(PROMPTS, texts(model, settings=changed), strict=True):
            pairs = list(zip([*prompt, *text], [*prompt, *text][1:], strict=False))[len(prompt) - 1 :]
            assert len(set(pairs)) == len(pairs)


def test_a_step_that_runs_ahead_writes_the_same(make: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch):
    """As on a GPU: the next step is begun before the last one's tokens are known."""
    model = make()
    expected = texts(model), texts(model, batch_size=2), texts(model, settings=GREEDY)

    class Ahead(Batch):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self._ahead = True

    monkeypatch.setattr(batches, "Batch", Ahead)
    assert (texts(model), texts(model, batch_size=2), texts(model, settings=GREEDY)) == expected


def test_caches_of_a_models_own_kind_do_as_well(make: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch):
    model = make()
    expected = texts(model)
    monkeypatch.setattr(memories, "keeps_plain_keys", lambda model: False)
    assert isinstance(memories.make_memory(model), Separate)
    assert texts(model) == texts(model, batch_size=2) == expected


def test_nothing_to_continue(make: Callable[..., Transformer]):
    with pytest.raises(ValueError, match="nothing to continue"):
        generate_batch(make(), [[1], []], WARM, KEY)
    assert generate_batch(make(), [], WARM, KEY) == []


def test_each_place_has_a_key_of_its_own():
    keys = row_keys(KEY, range(50))
    every = [tuple(key) for p in range(50) for key in position_keys(keys, [p] * 50).tolist()]  # type: ignore[union-attr]
    assert len(set(every)) == 2500
    assert row_keys(KEY, [7]).tolist() == keys[7:8].tolist()
    assert row_keys(mx.random.key(4), [0]).tolist() != row_keys(KEY, [1]).tolist()
