"""The decoding loop: when it stops, what it may see, and what it shows of it."""

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.generation import memory
from tinytale_mlx.generation.completions import complete, stream_text
from tinytale_mlx.generation.engine import generate_ids
from tinytale_mlx.generation.prompts import stop_ids, text_prompt
from tinytale_mlx.generation.text import Completion
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig
from tinytale_mlx.tokenizers import ByteBPE, CharTokenizer

KEY = mx.random.key(0)
GREEDY = GenerateRecipe(temperature=0.0, max_new_tokens=30)
TRICKY = "Naïve café 😀👩‍👩‍👧 日本語\n\ttab “quoted” – end"


@pytest.fixture(scope="module")
def tokenizer() -> ByteBPE:
    """Bytes, special tokens, and hardly a merge: characters come in pieces."""
    return ByteBPE.train(["abab"], 264)


@pytest.fixture
def model(tiny: Callable[..., ModelConfig], tokenizer: ByteBPE) -> Transformer:
    """Untrained, and loud enough to have opinions."""
    config = tiny(context=12, vocab_size=tokenizer.vocab_size, tie_embeddings=False, init_std=0.3)
    return Transformer(config, seed=2)


class Tape:
    """A cache that remembers the tokens themselves."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.state = ()


class Parrot:
    """A model that answers each prompt with the next of its answers, then with token 0 forever.

    It is no MLX module, and so is read row by row; all of a prompt but its last token comes at once.
    """

    def __init__(self, config: ModelConfig, *answers: list[int]):
        self.config, self.answers = config, iter(answers)
        self.prompts: list[list[int]] = []

    def make_cache(self) -> list[Tape]:
        self.answer: list[int] = next(self.answers)
        self.tape = Tape()
        self.said = 0
        return [self.tape]

    def __call__(self, ids: mx.array, cache: list[Tape]) -> mx.array:
        new = np.array(ids)[0].tolist()
        if len(new) > 1 or self.said == 0:
            self.prompts[:] = [[*self.tape.tokens, *new]]
        self.tape.tokens += new
        token = [*self.answer, 0][min(self.said, len(self.answer))]
        self.said += len(new) == 1
        size: Any = self.config.vocab_size
        return 40.0 * mx.broadcast_to(mx.arange(size) == token, (1, len(new), size))


@pytest.fixture
def parrot(tiny: Callable[..., ModelConfig], tokenizer: ByteBPE) -> Callable[..., Any]:
    """parrot(*answers): answers as text are encoded and ended with EOS, as lists taken as they are."""

    def make(*answers: str | list[int], context: int = 400) -> Any:
        ids = [[*tokenizer.encode(a), tokenizer.eos_id] if isinstance(a, str) else a for a in answers]
        return Parrot(tiny(vocab_size=tokenizer.vocab_size, context=context), *ids)

    return make


def ids_of(model: Any, prompt: list[int], settings: GenerateRecipe = GREEDY, key: mx.array = KEY) -> list[int]:
    return list(generate_ids(model, prompt, settings, key))


# ---------------------------------------------------------------------- when it stops
def test_it_stops_at_the_end_of_the_text(parrot: Callable[..., Any], tokenizer: ByteBPE):
    model = parrot("Once.")
    completion = complete(model, tokenizer, [9, 8, 7], GREEDY, KEY, stop_ids(tokenizer))
    assert completion == Completion("Once.", tokenizer.encode("Once."), "stop")
    assert model.prompts == [[9, 8, 7]]


def test_it_stops_at_the_end_of_a_message(parrot: Callable[..., Any], tokenizer: ByteBPE):
    end = tokenizer.special_ids["<|im_end|>"]
    model = parrot([*tokenizer.encode("Hi"), end, *tokenizer.encode("never")])
    assert complete(model, tokenizer, [9], GREEDY, KEY, stop_ids(tokenizer)).text == "Hi"


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_it_stops_at_the_limit(parrot: Callable[..., Any], tokenizer: ByteBPE, limit: int):
    settings = GenerateRecipe(temperature=0.0, max_new_tokens=limit)
    completion = complete(parrot("Once."), tokenizer, [9], settings, KEY, stop_ids(tokenizer))
    assert completion == Completion("Once."[:limit], tokenizer.encode("Once.")[:limit], "length")


def test_the_end_may_be_the_last_token_allowed(parrot: Callable[..., Any], tokenizer: ByteBPE):
    settings = GenerateRecipe(temperature=0.0, max_new_tokens=6)
    completion = complete(parrot("Once."), tokenizer, [9], settings, KEY, stop_ids(tokenizer))
    assert (completion.text, completion.finish_reason) == ("Once.", "stop")


def test_the_end_comes_with_the_ids(parrot: Callable[..., Any], tokenizer: ByteBPE):
    eos = tokenizer.eos_id
    assert eos is not None
    ids = list(generate_ids(parrot("Hi"), [9], GREEDY, KEY, {eos}))
    assert ids == [*tokenizer.encode("Hi"), eos]
    assert len(ids_of(parrot("Hi"), [9])) == 30  # nobody said that EOS ends it


def test_an_empty_prompt(model: Transformer):
    with pytest.raises(ValueError, match="nothing to continue"):
        ids_of(model, [])


def test_what_ends_an_answer(tokenizer: ByteBPE):
    specials = tokenizer.special_ids
    assert stop_ids(tokenizer) == {specials["<|eos|>"], specials["<|im_end|>"]}
    assert stop_ids(CharTokenizer.train(["abc"])) <= set(range(20))


def test_a_text_begins_with_bos(tokenizer: ByteBPE):
    assert text_prompt(tokenizer, "") == [tokenizer.bos_id]
    assert text_prompt(tokenizer, "ab") == [tokenizer.bos_id, *tokenizer.encode("ab")]
    plain = CharTokenizer.train(["ab\n"], special_tokens=[])
    assert text_prompt(plain, "") == plain.encode("\n")
    assert text_prompt(plain, "ab") == plain.encode("ab")


# ---------------------------------------------------------------------- what it computes
def recomputed(model: Transformer, prompt: list[int], count: int) -> list[int]:
    """Greedy, reading the whole window anew for every token: until it is full, then from its last half."""
    context = model.config.context
    history, window = list(prompt), prompt[-context:]
    for _ in range(count):
        token = int(mx.argmax(model(mx.array([window]))[0, -1]).item())
        history.append(token)
        window = [*window, token] if len(window) < context else history[-(context // 2) :]
    return history[len(prompt) :]


@pytest.mark.parametrize("positions", ["rope", "learned", "sinusoidal", "t5", "alibi", "none"])
@pytest.mark.parametrize("length", [1, 7, 12, 30])
def test_greedy_is_what_reading_everything_anew_gives(
    positions: str, length: int, tiny: Callable[..., ModelConfig], dice: np.random.Generator
):
    """Three windows long, for every kind of positions: also past the window, and from a prompt beyond it."""
    config = tiny(context=12, positions=positions, init_std=0.3, tie_embeddings=False)
    model = Transformer(config, seed=6)
    prompt = dice.integers(0, 40, length).tolist()
    settings = GenerateRecipe(temperature=0.0, max_new_tokens=40)
    ids = ids_of(model, prompt, settings)
    assert ids == recomputed(model, prompt, 40)
    assert len(set(ids)) > 3  # it does not just repeat itself


def test_a_window_of_one_token(tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny(context=1, init_std=0.3))
    ids = ids_of(model, [3, 4])
    expected, token = [], 4
    for _ in range(30):
        token = int(mx.argmax(model(mx.array([[token]]))[0, -1]).item())
        expected.append(token)
    assert ids == expected


def test_a_long_prompt_counts_with_its_end(model: Transformer, dice: np.random.Generator):
    prompt = dice.integers(8, 264, 40).tolist()
    assert ids_of(model, prompt) == ids_of(model, prompt[-12:])
    assert ids_of(model, prompt) != ids_of(model, prompt[:12])


def test_a_prompt_is_read_in_pieces(model: Transformer, monkeypatch: pytest.MonkeyPatch):
    whole = ids_of(model, list(range(20, 31)))
    monkeypatch.setattr(memory, "PREFILL", 4)
    assert ids_of(model, list(range(20, 31))) == whole


def test_the_prompt_is_left_alone(model: Transformer):
    prompt = [20, 21, 22]
    ids_of(model, prompt)
    assert prompt == [20, 21, 22]


# ---------------------------------------------------------------------- chance
WARM = GenerateRecipe(temperature=1.0, top_p=1.0, max_new_tokens=30)


def test_the_same_key_gives_the_same_text(model: Transformer):
    one = ids_of(model, [20], WARM, mx.random.key(1))
    mx.random.seed(9)
    assert ids_of(model, [20], WARM, mx.random.key(1)) == one
    assert ids_of(model, [20], WARM, mx.random.key(2)) != one


def test_a_lower_limit_gives_the_start_of_the_same_text(model: Transformer):
    longer = WARM.model_copy(update={"max_new_tokens": 45})
    assert ids_of(model, [20], longer)[:30] == ids_of(model, [20], WARM)


def test_each_token_is_drawn_anew(tiny: Callable[..., ModelConfig]):
    """A model that finds all tokens equally likely writes most of them."""
    model = Transformer(tiny(init_std=1e-6))
    ids = ids_of(model, [3], GenerateRecipe(temperature=1.0, top_p=1.0, max_new_tokens=200))
    assert len(set(ids)) > 30


def test_ids_that_the_tokenizer_lacks_are_never_drawn(tiny: Callable[..., ModelConfig], tokenizer: ByteBPE):
    model = Transformer(tiny(vocab_size=1000, init_std=1e-6))
    for temperature in (0.0, 1.0):
        settings = WARM.model_copy(update={"temperature": temperature, "max_new_tokens": 100})
        completion = complete(model, tokenizer, [3], settings, KEY, ())
        assert max(completion.tokens) < tokenizer.vocab_size
        assert len(completion.tokens) == 100


# ---------------------------------------------------------------------- what it shows
def pieces_of(model: Any, tokenizer: ByteBPE, settings: GenerateRecipe) -> tuple[list[str], Completion]:
    completion = Completion()
    stream = stream_text(model, tokenizer, [9], settings, KEY, stop_ids(tokenizer), completion)
    return list(stream), completion


def test_pieces_join_to_the_text_and_never_hold_half_a_character(parrot: Callable[..., Any], tokenizer: ByteBPE):
    settings = GenerateRecipe(temperature=0.0, max_new_tokens=300)
    pieces, completion = pieces_of(parrot(TRICKY), tokenizer, settings)
    assert "".join(pieces) == completion.text == TRICKY
    assert all(pieces)
    assert len(pieces) > 30  # it did stream
    assert len(completion.tokens) > len(TRICKY)


def test_a_text_cut_within_a_character_says_so_once(parrot: Callable[..., Any], tokenizer: ByteBPE):
    settings = GenerateRecipe(temperature=0.0, max_new_tokens=4)  # of the five bytes of "a😀"
    pieces, completion = pieces_of(parrot("a😀b"), tokenizer, settings)
    assert pieces == ["a", "\ufffd"]
    assert completion.text == "a\ufffd"
    assert completion.finish_reason == "length"


def test_random_bytes_are_always_some_text(model: Transformer, tokenizer: ByteBPE):
    pieces, completion = pieces_of(model, tokenizer, WARM.model_copy(update={"max_new_tokens": 200}))
    assert "".join(pieces) == completion.text == tokenizer.decode(completion.tokens)


def test_who_stops_listening_has_what_was_said(parrot: Callable[..., Any], tokenizer: ByteBPE):
    completion = Completion()
    stream: Iterator[str] = stream_text(parrot("abcdef"), tokenizer, [9], GREEDY, KEY, (), completion)
    first = [next(stream), next(stream)]
    stream.close()  # type: ignore[attr-defined]
    assert completion.text == "".join(first)
    assert tokenizer.decode(completion.tokens) == completion.text
