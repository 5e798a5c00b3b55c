"""What is remembered: from turn to turn, in few bits, in a window that rolls, and in models that are not ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.models import llama

from tinytale_mlx.errors import UserError
from tinytale_mlx.generation import memory as memories
from tinytale_mlx.generation.batch import generate_batch
from tinytale_mlx.generation.engine import generate_ids
from tinytale_mlx.generation.memory import SINKS, Separate, Slots, make_memory
from tinytale_mlx.generation.prompt_cache import PromptCache, common_prefix
from tinytale_mlx.models import Transformer
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.models.slots import SPARE
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig

KEY = mx.random.key(3)
GREEDY = GenerateRecipe(temperature=0.0, max_new_tokens=30)
WARM = GenerateRecipe(temperature=1.0, top_p=0.9, max_new_tokens=30)


@pytest.fixture
def make(tiny: Callable[..., ModelConfig]) -> Callable[..., Transformer]:
    def model(**changes) -> Transformer:
        return Transformer(tiny(**{"init_std": 0.3, "tie_embeddings": False, "context": 100, **changes}), seed=6)

    return model


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens were read at once, each time."""
    found: list[int] = []
    original = Slots._read

    def read(self: Slots, prompts: list[list[int]], row: int) -> Any:
        found.extend(len(ids) for ids in prompts)
        return original(self, prompts, row)

    monkeypatch.setattr(Slots, "_read", read)
    return found


# ---------------------------------------------------------------------- from turn to turn
def test_a_second_turn_reads_what_is_new(make: Callable[..., Transformer], reads: list[int]):
    model, cache = make(), PromptCache()
    first = list(range(10))
    answer = list(generate_ids(model, first, WARM, KEY, cache=cache))
    assert cache.tokens[:10] == first
    assert cache.tokens == [*first, *answer][: len(cache.tokens)]
    assert len(cache.tokens) >= 39
    second = [*first, *answer, 7, 8, 9]
    again = list(generate_ids(model, second, WARM, KEY, cache=cache))
    assert sum(reads) <= 9 + 4
    assert again == list(generate_ids(model, second, WARM, KEY))


def test_another_text_is_read_from_where_it_differs(make: Callable[..., Transformer], reads: list[int]):
    model, cache = make(), PromptCache()
    for prompt in ([1, 2, 3, 4, 5, 6], [1, 2, 3, 9, 9, 9, 9], [1, 2, 3], [30], [1, 2, 3, 4]):
        expected = list(generate_ids(model, prompt, WARM, KEY))
        reads.clear()
        found = list(generate_ids(model, prompt, WARM, KEY, cache=cache))
        assert found == expected
    assert sum(reads) == 3


def test_a_text_that_was_broken_off_goes_on(make: Callable[..., Transformer]):
    model = make()
    whole = list(generate_ids(model, [5, 6], WARM, KEY))
    cache = PromptCache()
    stream = generate_ids(model, [5, 6], WARM, KEY, cache=cache)
    some = [next(stream) for _ in range(6)]
    stream.close()  # type: ignore[attr-defined]
    assert some == whole[:6]
    greedy = list(generate_ids(model, [5, 6, *some], GREEDY, KEY, cache=cache))
    assert greedy == list(generate_ids(model, [5, 6, *some], GREEDY, KEY))


@pytest.mark.parametrize("changes", [{}, {"context": 16}, {"sliding_window": 6}, {"positions": "learned"}], ids=str)
def test_turns_with_windows(make: Callable[..., Transformer], changes: dict):
    """Beyond the context and with a sliding window: a cache is never noticed in the text."""
    model, cache = make(**changes), PromptCache()
    history: list[int] = []
    for turn in range(4):
        history += [turn, turn + 1, turn + 2]
        answer = list(generate_ids(model, history, WARM, KEY, cache=cache))
        assert answer == list(generate_ids(model, history, WARM, KEY))
        history += answer


def test_new_weights_are_used_at_once(make: Callable[..., Transformer]):
    """A compiled step must not keep the weights that it saw first."""
    model = make()
    before = list(generate_ids(model, [5], GREEDY, KEY))
    memory = make_memory(model)
    memory.forward(mx.array([[3]]), [0])
    model.update(make(tie_embeddings=True).parameters(), strict=False)
    model.lm_head.weight = model.lm_head.weight * -1
    mx.eval(model.parameters())
    logits = memory.forward(mx.array([[4]]), [0])
    memory.trim(0, 1)
    assert np.allclose(np.array(memory.forward(mx.array([[4]]), [0])), np.array(logits), atol=1e-5)
    fresh = make_memory(model)
    fresh.read([0], [[3]])
    # The first token was read with the old weights, so only the same order of size is asked for.
    assert np.sign(np.array(fresh.forward(mx.array([[4]]), [0])).sum()) == np.sign(np.array(logits).sum())
    assert list(generate_ids(model, [5], GREEDY, KEY)) != before


def test_the_longest_beginning():
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([], [1]) == common_prefix([2], [1]) == 0
    assert common_prefix([1, 2], [1, 2, 3]) == common_prefix([1, 2, 3], [1, 2]) == 2


# ---------------------------------------------------------------------- windows that roll
@pytest.mark.parametrize("positions", ["rope", "t5", "alibi", "none"])
def test_a_sliding_window_is_a_ring(make: Callable[..., Transformer], positions: str):
    """Far beyond the window and the context, every token is the one that reading all of the text anew gives."""
    model = make(positions=positions, sliding_window=6, context=20)
    settings = GenerateRecipe(temperature=0.0, max_new_tokens=60)
    for length in (1, 5, 19):
        ids = list(range(length))
        for token in generate_ids(model, ids[:], settings, KEY):
            logits = model(mx.array([ids]))[0, -1]
            assert float(logits[token]) >= float(logits.max()) - 1e-4
            ids.append(token)


@pytest.mark.parametrize("positions", ["rope", "sinusoidal", "t5", "alibi", "none"])
def test_rolling_on_sees_the_first_tokens_and_the_last(make: Callable[..., Transformer], positions: str):
    """One layer, so that what a token sees is all that counts: the text without its middle gives the same logits."""
    model = make(positions=positions, layers=1, context=16)
    memory = make_memory(model, roll=True)
    ids = np.random.default_rng(0).integers(0, 40, 60).tolist()
    memory.read([0], [ids[:10]])
    for place in range(10, 60):
        logits = memory.forward(mx.array([ids[place : place + 1]]), [0])[0, -1]
    keys = [*range(SINKS), *range(60 - (16 - SINKS), 60)]
    expected = seen_by_the_last(model, ids, keys)
    assert np.allclose(np.array(logits), expected, atol=1e-4)


def seen_by_the_last(model: Transformer, ids: list[int], keys: list[int]) -> np.ndarray:
    """The last token's logits where it sees only tokens at these places, by segments: the others are elsewhere."""
    block, x = model.layers[0], model.model._embed(mx.array([ids]), 0)
    y = block.input_layernorm(x)
    attention = block.self_attn
    mask: Any = attention._mask(len(ids), len(ids), y.dtype)
    hidden = np.full((len(ids), len(ids)), True)
    hidden[-1, keys] = False
    if isinstance(mask, str):
        mask = mx.tril(mx.ones((len(ids), len(ids)), mx.bool_))
    low = mx.array(False) if mask.dtype == mx.bool_ else mx.array(-np.inf)
    replaced = mx.where(mx.array(hidden) & (mx.arange(len(ids))[:, None] == len(ids) - 1), low, mask)
    attention._mask = lambda *_: replaced  # type: ignore[method-assign]
    x = x + attention(y)
    del attention._mask
    x = x + block.mlp(block.post_attention_layernorm(x))
    return np.array(model.logits(model.model.norm(x))[0, -1])


def test_a_rolling_text_takes_no_more_memory(make: Callable[..., Transformer]):
    memory = make_memory(make(sliding_window=6))
    assert isinstance(memory, Slots)
    for _ in range(400):
        memory.forward(mx.array([[3]]), [0])
    assert memory.lengths == [400]
    assert memory._buffers[0][0].shape[2] == 6 + SPARE


def test_a_long_text_takes_its_window(make: Callable[..., Transformer]):
    """Peak memory of a text nine windows long is that of two windows: nothing piles up."""
    model = make(context=64)
    peaks = []
    for count in (150, 600):
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        list(generate_ids(model, [1], GREEDY.model_copy(update={"max_new_tokens": count}), KEY))
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] <= peaks[0] * 1.1 + 50_000


def test_what_cannot_roll_says_why(make: Callable[..., Transformer]):
    with pytest.raises(UserError, match="learned 100 positions and knows none beyond"):
        make_memory(make(positions="learned"), roll=True)


def test_a_draft_is_taken_back_from_a_ring(make: Callable[..., Transformer]):
    model = make(sliding_window=6)
    ids = list(range(30))
    memory, plain = make_memory(model), make_memory(model)
    for start in range(0, 30, 3):
        piece = ids[start : start + 3]
        memory.forward(mx.array([[*piece, 39, 38, 37, 36]]), [0])
        memory.trim(0, start + 3)
        for token in piece:
            logits = plain.forward(mx.array([[token]]), [0])
    assert np.allclose(
        np.array(memory.forward(mx.array([[1]]), [0])), np.array(plain.forward(mx.array([[1]]), [0])), atol=1e-4
    )
    memory.trim(0, 3)  # too far back: what was there is gone
    assert memory.lengths == [0]
    assert logits.shape == (1, 1, 40)


# ---------------------------------------------------------------------- few bits
@pytest.mark.parametrize("positions", ["rope", "alibi"])
@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.1), (4, 1.0)])
def test_few_bits_are_close(make: Callable[..., Transformer], positions: str, bits: int, tolerance: float):
    model = make(positions=positions, hidden_size=128, heads=4, kv_heads=2, init_std=0.1)
    prompts = [list(range(20)), [5, 6, 7]]
    plain, packed = Slots(model, 2), Slots(model, 2, kv_bits=bits)
    for memory in (plain, packed):
        memory.read([0, 1], prompts)
    errors = []
    for token in range(8):
        tokens = mx.array([[token], [token + 1]])
        exact, close = (np.array(memory.forward(tokens, [0, 1])) for memory in (plain, packed))
        errors.append(np.abs(exact - close).max() / exact.std())
    assert 0 < max(errors) < tolerance


def test_few_bits_take_little_memory(make: Callable[..., Transformer]):
    model = make(hidden_size=256, heads=4)
    sizes = []
    for bits in (None, 8, 4):
        memory = Slots(model, kv_bits=bits)
        memory.read([0], [list(range(30))])
        sizes.append(sum(array.nbytes for _, array in named_arrays(memory._buffers)))
    assert sizes[1] < 0.33 * sizes[0]
    assert sizes[2] < 0.22 * sizes[0]


def test_few_bits_through_the_engine(make: Callable[..., Transformer]):
    model = make(hidden_size=128, heads=4)
    prompts = [[1, 2, 3], [4], list(range(12))]
    alone = [list(generate_ids(model, p, GREEDY, KEY, cache=PromptCache(kv_bits=8))) for p in prompts]
    assert [text.tokens for text in generate_batch(model, prompts, GREEDY, KEY, kv_bits=8)] == alone


def test_heads_that_cannot_be_packed_say_so(make: Callable[..., Transformer]):
    with pytest.raises(UserError, match="heads of 8 numbers can't be quantized"):
        make_memory(make(), kv_bits=4)
    with pytest.raises(UserError, match="not 7"):
        make_memory(make(hidden_size=128), kv_bits=7)


# ---------------------------------------------------------------------- models of mlx-lm
@pytest.fixture(scope="module")
def theirs() -> llama.Model:
    mx.random.seed(5)
    arguments = llama.ModelArgs(
        model_type="llama", hidden_size=64, num_hidden_layers=3, intermediate_size=96, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-5, vocab_size=60, head_dim=32, max_position_embeddings=300,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = llama.Model(arguments)
    model.update({"lm_head": {"weight": model.lm_head.weight * 8}})
    mx.eval(model.parameters())
    return model


def test_a_model_of_mlx_lm_writes_what_it_writes_there(theirs: llama.Model):
    expected = [token for token, _ in generate_step(mx.array([3, 4, 5]), theirs, max_tokens=256)]
    settings = GREEDY.model_copy(update={"max_new_tokens": 256})
    assert list(generate_ids(theirs, [3, 4, 5], settings, KEY)) == expected
    assert len(set(expected)) > 10
    batch = generate_batch(theirs, [[9, 8], [3, 4, 5], [7] * 40], settings, KEY)
    assert batch[1].tokens == expected


def test_few_bits_of_theirs(theirs: llama.Model):
    plain, packed = make_memory(theirs), make_memory(theirs, kv_bits=8)
    for memory in (plain, packed):
        memory.read([0], [list(range(20))])
    exact, close = (np.array(m.forward(mx.array([[3]]), [0])) for m in (plain, packed))
    assert 0 < np.abs(exact - close).max() < 0.05 * exact.std()


def test_their_own_caches_are_kept(monkeypatch: pytest.MonkeyPatch):
    """Gemma 3's layers forget at different lengths, so it is asked for its own caches."""
    from mlx_lm.models import gemma3_text

    mx.random.seed(5)
    model = gemma3_text.Model(gemma3_text.ModelArgs(
        model_type="gemma3_text", hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=2,
        head_dim=16, num_key_value_heads=1, vocab_size=50, sliding_window=8, sliding_window_pattern=2,
    ))  # fmt: skip
    assert isinstance(make_memory(model), Separate)
    expected = [token for token, _ in generate_step(mx.array([3, 4, 5]), model, max_tokens=40)]
    settings = GREEDY.model_copy(update={"max_new_tokens": 40})
    assert list(generate_ids(model, [3, 4, 5], settings, KEY)) == expected
    assert generate_batch(model, [[3, 4, 5], [8]], settings, KEY)[0].tokens == expected
    with pytest.raises(UserError, match="a cache of its own kind"):
        make_memory(model, roll=True)


@pytest.mark.parametrize("twins", [False, True])
def test_twins_are_one_row(make: Callable[..., Transformer], theirs: llama.Model, twins: bool, monkeypatch):
    monkeypatch.setattr(memories, "wants_twins", lambda model: twins)
    for model in (make(), make(positions="alibi"), make(positions="learned"), theirs):
        memory = make_memory(model)
        memory.read([0], [[1, 2, 3]])
        logits = memory.forward(mx.array([[4]]), [0])
        expected = model(mx.array([[1, 2, 3, 4]]))[:, -1:]
        assert logits.shape == expected.shape
        assert np.allclose(np.array(logits), np.array(expected), atol=1e-4)
        assert memory._buffers[0][0].shape[0] == 1  # type: ignore[attr-defined]


def test_packed_weights_want_no_twins(make: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memories, "scalar_exp", lambda: True)
    model = make(hidden_size=64, intermediate_size=64)
    assert memories.wants_twins(model)
    nn.quantize(model, 32, 4)
    assert not memories.wants_twins(model)
    monkeypatch.setattr(memories, "scalar_exp", lambda: False)
    assert not memories.wants_twins(make())


def test_greedy_is_mlx_lms_on_the_same_directory(make: Callable[..., Transformer], tmp_path: Path):
    """Written by us, read by mlx-lm: 256 greedy tokens are the same."""
    from mlx_lm.utils import load_model

    from tinytale_mlx.interop.huggingface import save_model
    from tinytale_mlx.tokenizers import ByteBPE

    tokenizer = ByteBPE.train(["abab"], 264)
    model = make(vocab_size=264, context=300, kv_heads=2)
    save_model(tmp_path / "model", model, tokenizer, GREEDY, chat_template=False)
    other, _ = load_model(tmp_path / "model")
    expected = [token for token, _ in generate_step(mx.array([9, 8, 7]), other, max_tokens=256)]
    settings = GREEDY.model_copy(update={"max_new_tokens": 256})
    assert list(generate_ids(model, [9, 8, 7], settings, KEY)) == expected
    assert list(generate_ids(other, [9, 8, 7], settings, KEY)) == expected
