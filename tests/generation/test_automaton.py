"""Nothing but what is allowed: one of some texts, or JSON."""

import json
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.generation.automaton import choices
from tinytale_mlx.generation.json_automaton import json_automaton
from tinytale_mlx.generation.sampling import Sampler
from tinytale_mlx.recipe import GenerateRecipe
from tinytale_mlx.tokenizers import ByteBPE, CharTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> ByteBPE:
    return ByteBPE.train(['{"name": "fox", "n": [1, 2, 3]}, yes, no, yesterday ' * 20], 280)


def write(table: mx.array, tokenizer: ByteBPE, rows: int, steps: int, seed: int, **settings: Any) -> list[str | None]:
    """What a model without an opinion writes; None for a text that did not end."""
    dice = np.random.default_rng(seed)
    sampler = Sampler(GenerateRecipe(**{"temperature": 1.0, "top_p": 1.0, **settings}), rows, None,
                      {tokenizer.eos_id}, table)  # type: ignore[arg-type]  # fmt: skip
    texts: list[list[int]] = []
    for step in range(steps):
        logits = mx.array(dice.normal(size=(rows, tokenizer.vocab_size)).astype(np.float32))
        texts.append(np.array(sampler(logits, mx.random.split(mx.random.key(step), rows))[0]).tolist())
    found: list[str | None] = []
    for row in zip(*texts, strict=True):
        end = row.index(tokenizer.eos_id) if tokenizer.eos_id in row else None
        found.append(None if end is None else tokenizer.decode(row[:end]))
    return found


# ---------------------------------------------------------------------- choices
def test_one_of_the_texts(tokenizer: ByteBPE):
    """Also one that is the beginning of another."""
    texts = ["yes", "yesterday", "no", "na\u00efve"]
    found = write(choices(tokenizer, texts, {tokenizer.eos_id}), tokenizer, 200, 20, 0)  # type: ignore[arg-type]
    assert set(found) == set(texts)


def test_the_likelier_one_is_chosen(tokenizer: ByteBPE):
    eos = tokenizer.eos_id
    assert eos is not None
    table = choices(tokenizer, ["ab", "cd"], {eos})
    logits = np.zeros((1, tokenizer.vocab_size), np.float32)
    logits[0, tokenizer.encode("c")[0]] = 1
    logits[0, tokenizer.encode("z")[0]] = 9
    sampler = Sampler(GenerateRecipe(temperature=0.0), 1, None, {eos}, table)
    ids = [int(sampler(mx.array(logits), mx.random.key(0)[None])[0].item()) for _ in range(3)]
    assert ids == [*tokenizer.encode("cd"), eos]


def test_other_rules_cannot_make_it_impossible(tokenizer: ByteBPE):
    """A text that may not end yet, but can't go on either, ends."""
    table = choices(tokenizer, ["no"], {tokenizer.eos_id})  # type: ignore[arg-type]
    assert write(table, tokenizer, 3, 12, 0, min_new_tokens=10) == ["no"] * 3


@pytest.mark.parametrize("texts", [[], ["a", ""]])
def test_bad_choices(texts: list[str], tokenizer: ByteBPE):
    with pytest.raises(UserError, match="choices are texts"):
        choices(tokenizer, texts, {tokenizer.eos_id})  # type: ignore[arg-type]


def test_without_a_token_that_ends():
    with pytest.raises(UserError, match="no end-of-text token"):
        choices(CharTokenizer.train(["ab"], special_tokens=[]), ["a"], ())


# ---------------------------------------------------------------------- JSON
@pytest.fixture(scope="module")
def table(tokenizer: ByteBPE) -> mx.array:
    return json_automaton(tokenizer, {tokenizer.eos_id})  # type: ignore[arg-type]


def accepts(table: mx.array, tokenizer: ByteBPE, text: str) -> bool:
    rows, place = np.array(table), 0
    for token in tokenizer.encode(text, special=False):
        place = rows[place, token]
        if place < 0:
            return False
    return rows[place, tokenizer.eos_id] >= 0


@pytest.mark.parametrize(
    "content",
    [{}, [], {"name": "fox", "n": [1, 2, 3]}, [True, False, None, -0.5, 1e300, 0],
     {"a": {"b": [{"c": "\u00e9\U0001f600\n\"\\"}]}}],
    ids=str,
)  # fmt: skip
def test_what_python_writes_is_allowed(content: Any, table: mx.array, tokenizer: ByteBPE):
    assert accepts(table, tokenizer, json.dumps(content))
    assert accepts(table, tokenizer, json.dumps(content, ensure_ascii=False))
    assert accepts(table, tokenizer, json.dumps(content, separators=(",", ":")))


@pytest.mark.parametrize(
    "text",
    ["", "1", "tru", "[1", "[01]", "[1.]", "[1e]", "[--1]", "[1,]", "[,1]", '{"a"}', '{"a": }', '{"a": 1,}', '["a]',
     '["\\x"]', "[tru]", "{1: 2}", "[]]", '["\n"]', "[[[[[]]]]]"],
)  # fmt: skip
def test_what_is_no_json_is_not(text: str, table: mx.array, tokenizer: ByteBPE):
    """The last one is, but nests more deeply than four."""
    assert not accepts(table, tokenizer, text)


def test_whatever_ends_is_json(table: mx.array, tokenizer: ByteBPE):
    closing = {i: 2.0 for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i)[-1:] in (b"}", b"]", b'"')}
    found = write(table, tokenizer, 100, 150, 0, logit_bias=closing)
    texts = [text for text in found if text is not None]
    assert len(texts) > 80
    assert all(isinstance(json.loads(text), (dict, list)) for text in texts)
    assert len(set(texts)) > 20
