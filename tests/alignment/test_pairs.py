"""Preferences as ids: a response ends with its own end, and what cannot be used is left out and counted."""

import numpy as np
import pytest

from tinytale_mlx.alignment.pairs import (
    UNRANKED,
    ShuffledRows,
    encode_comparisons,
    encode_labels,
    encode_prompt_only,
)
from tinytale_mlx.alignment.preference_tuning import all_pairs
from tinytale_mlx.data.preferences import Labelled, Preference, Ranked, embedded_preferences
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe.align import LengthsRecipe
from tinytale_mlx.tokenizers import ByteBPE, CharTokenizer
from tinytale_mlx.tokenizers.chat import encode_conversation
from tinytale_mlx.tokenizers.templates import CHATML, PLAIN

SPECIALS = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
LENGTHS = LengthsRecipe(prompt_tokens=40, response_tokens=20)


@pytest.fixture(scope="module")
def tokenizer() -> CharTokenizer:
    return CharTokenizer.train(
        ["abcdefghijklmnopqrstuvwxyz .,?!ABCDEFGHIJKLMNOPQRSTUVWXYZ\n'"], special_tokens=SPECIALS
    )


def said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def pair(prompt: str, chosen: str, rejected: str, margin: float | None = None) -> Preference:
    return Preference(said("user", prompt), said("assistant", chosen), said("assistant", rejected), margin)


def text_of(tokenizer, rows, *place: int) -> tuple[str, str]:
    """The prompt of a row, and what the mask says of its response."""
    ids, start, mask = rows.ids[place], rows.starts[place], rows.mask[place]
    response = ids[start : start + len(mask)][mask > 0]
    return tokenizer.decode(ids[:start].tolist()), tokenizer.decode(response.tolist())


@pytest.mark.parametrize("template", [PLAIN, CHATML], ids=lambda template: template.name)
def test_rows_are_conversations(tokenizer, template):
    """The ids are those of fine-tuning up to the end of the answer, and only the answer counts."""
    found, left = encode_comparisons([pair("Who?", "Me.", "You two.", 0.5)], tokenizer, LENGTHS, template)
    assert (left.kept, left.too_long, left.equal, left.empty, left.shortened) == (1, 0, 0, 0, 0)
    assert found.margins.tolist() == [0.5]
    assert found.ranks.tolist() == [[1, 2]]
    for k, answer in enumerate(("Me.", "You two.")):
        whole = encode_conversation(tokenizer, [*said("user", "Who?"), *said("assistant", answer)], template)
        end = max(i for i, weight in enumerate(whole.weights) if weight) + 1
        assert found.ids[0, k, :end].tolist() == whole.ids[:end]
        assert not found.ids[0, k, end:].any()
        assert found.mask[0, k].sum() == sum(whole.weights)
        assert found.starts[0, k] == whole.weights.index(1)
        ended = found.ids[0, k, found.starts[0, k] + int(found.mask[0, k].sum()) - 1]
        assert ended == tokenizer.special_ids["<|eos|>" if template is PLAIN else "<|im_end|>"]


def test_what_cannot_be_used_is_left_out_and_counted(tokenizer):
    items = [
        pair("a", "good", "bad"),
        pair("b", "x" * 20, "bad"),  # with its end that is one too many
        pair("c", "x" * 19, "bad"),
        pair("d", "same", "same"),
        pair("e", "", "bad"),
        pair("f" * 60 + "tail", "good", "bad"),
    ]
    found, left = encode_comparisons(items, tokenizer, LENGTHS, PLAIN)
    assert (left.kept, left.too_long, left.equal, left.empty, left.shortened) == (3, 1, 1, 1, 1)
    assert found.ids.shape == (3, 2, 60)
    prompt, response = text_of(tokenizer, found, 2, 0)
    assert len(prompt) == 40
    assert prompt.endswith("fftail")
    assert response.startswith("good")


def test_nothing_left_is_an_error(tokenizer):
    with pytest.raises(UserError, match="no row is left to learn from: 1 have a response that does not fit"):
        encode_comparisons([pair("a", "x" * 50, "bad")], tokenizer, LENGTHS, PLAIN)


def test_rankings_of_different_lengths(tokenizer):
    three = Ranked(said("user", "a"), [said("assistant", text) for text in ("best", "good", "bad")], [1, 2, 3])
    found, _ = encode_comparisons([three, pair("b", "yes", "no")], tokenizer, LENGTHS, PLAIN)
    assert found.ranks.tolist() == [[1, 2, 3], [1, 2, UNRANKED]]
    assert not found.mask[1, 2].any()
    assert text_of(tokenizer, found, 0, 1)[1].startswith("good")
    every = all_pairs(found)
    assert len(every.ids) == 4
    assert [text_of(tokenizer, every, i, 0)[1] for i in range(4)] == ["best", "best", "good", "yes"]


def test_turns_of_the_user_within_a_response_do_not_count(tokenizer):
    answer = [*said("assistant", "one"), *said("user", "and"), *said("assistant", "two")]
    item = Preference(said("user", "a"), answer, said("assistant", "no"))
    found, _ = encode_comparisons([item], tokenizer, LengthsRecipe(prompt_tokens=40, response_tokens=60), CHATML)
    assert text_of(tokenizer, found, 0, 0)[1] == "onetwo"
    assert found.mask[0, 0].sum() == len("onetwo") + 2


def test_single_labels(tokenizer):
    items = [
        Labelled(said("user", "a"), said("assistant", text), good)
        for text, good in (("yes", True), ("x" * 30, True), ("no", False))
    ]
    found, left = encode_labels(items, tokenizer, LENGTHS, PLAIN)
    assert found.desirable.tolist() == [True, False]
    assert (left.kept, left.too_long) == (2, 1)
    assert text_of(tokenizer, found, 1)[1].startswith("no")


def test_prompts_alone(tokenizer):
    ids, shortened = encode_prompt_only(tokenizer, said("user", "abc"), LENGTHS, PLAIN)
    assert not shortened
    assert ids == [tokenizer.bos_id, *tokenizer.encode("abc")]
    ids, shortened = encode_prompt_only(tokenizer, said("user", "abc" * 50), LENGTHS, PLAIN)
    assert shortened
    assert len(ids) == 40
    bare = CharTokenizer.train(["abc"], special_tokens=["<|eos|>"])
    with pytest.raises(UserError, match="a prompt is empty"):
        encode_prompt_only(bare, said("user", ""), LENGTHS, PLAIN)


def test_the_embedded_preferences_fit():
    items = list(embedded_preferences(30, seed=0))
    texts = [message["content"] for item in items for message in (*item.prompt, *item.chosen, *item.rejected)]
    tokenizer = ByteBPE.train(texts, 500)
    found, left = encode_comparisons(items, tokenizer, LengthsRecipe(prompt_tokens=256, response_tokens=256), PLAIN)
    assert left.kept == 30
    assert text_of(tokenizer, found, 4, 0)[1].startswith(items[4].chosen[0]["content"])
    assert text_of(tokenizer, found, 4, 1)[1].startswith(items[4].rejected[0]["content"])


def test_batches_are_a_function_of_seed_and_number():
    arrays = [np.arange(10), np.arange(10) * 2]
    batches = ShuffledRows(arrays, 4, seed=1)
    taken = [batches.at(number) for number in range(5)]
    first, second = np.concatenate([batch[0] for batch in taken])[:10], np.concatenate([b[0] for b in taken])[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()
    for one, two in taken:
        assert (two == 2 * one).all()
    assert batches.at(3)[0].tolist() == ShuffledRows(arrays, 4, seed=1).at(3)[0].tolist()
    assert [b.tolist() for b in batches.at(0)] != [b.tolist() for b in ShuffledRows(arrays, 4, seed=2).at(0)]
    assert len(ShuffledRows(arrays, 40, seed=1).at(0)[0]) == 10
