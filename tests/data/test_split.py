"""The two sides of a corpus keep apart, whatever it grows to."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytale_mlx.data.prepare import prepare
from tinytale_mlx.data.shards import Shard
from tinytale_mlx.data.sources import Document
from tinytale_mlx.data.split import split, split_text
from tinytale_mlx.errors import UserError

TALES = [f"Tale {number}: the fox ran {number} miles.\n" for number in range(300)]
CHAT = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A fox, naïve."},
]


def texts(shard: Shard, tokenizer: Any) -> list[str]:
    return [tokenizer.decode(shard.document(number).tolist()) for number in range(shard.documents)]


def test_split_is_frozen() -> None:
    """A document must be on the same side in every process, today and after the next release."""
    held_out = [number for number in range(100) if split(f"tale {number}", 0.1) == "validation"]
    assert held_out == [16, 23, 39, 64, 95]


def test_split_holds_out_about_the_fraction_asked_for() -> None:
    held_out = [text for text in map(str, range(10_000)) if split(text, 0.1) == "validation"]
    assert 900 < len(held_out) < 1100
    assert all(split(text, 0.3) == "validation" for text in held_out)  # more is held out, never others
    assert {split(text, 0.0) for text in held_out} == {"train"}


def test_split_of_a_conversation_ignores_the_order_of_keys() -> None:
    for number in range(50):
        pairs = [("role", "user"), ("content", str(number))]
        assert split([dict(pairs)], 0.5) == split([dict(reversed(pairs))], 0.5)


def test_split_stays_when_the_corpus_grows(tokenizer: Any, tmp_path: Path) -> None:
    small = prepare(TALES[:200], tokenizer, tmp_path / "small", fraction=0.2)
    large = prepare([*reversed(TALES), *TALES[:50]], tokenizer, tmp_path / "large", fraction=0.2)
    for before, after in zip(small, large, strict=True):
        assert set(texts(before, tokenizer)) < set(texts(after, tokenizer))
    sides = [set(texts(shard, tokenizer)) for shard in large]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(TALES)


@given(st.text("ab\n", min_size=2, max_size=400), st.floats(0.01, 0.9))
def test_one_text_is_cut_once_and_whole(text: str, fraction: float) -> None:
    train, validation = split_text(text, fraction)
    assert train + validation == text
    assert abs(len(validation) - fraction * len(text)) <= len(text) / 20 + 2


def test_one_text_is_cut_at_a_line_border_near_its_end() -> None:
    text = "".join(f"line {number}\n" for number in range(1000))
    train, validation = split_text(text, 0.1)
    assert train.endswith("\n")
    assert abs(len(validation) / len(text) - 0.1) < 0.01
    assert split_text("x" * 100, 0.1) == ("x" * 90, "x" * 10)


def test_single_document_corpus(tokenizer: Any, tmp_path: Path) -> None:
    text = "".join(TALES)
    shards = prepare([text], tokenizer, tmp_path, fraction=0.1)
    assert (shards.train.documents, shards.validation.documents) == (1, 1)
    assert texts(shards.train, tokenizer)[0] + texts(shards.validation, tokenizer)[0] == text


@pytest.mark.parametrize(
    ("corpus", "fraction", "expected"),
    [
        ([], 0.1, "there is no document in the data"),
        (TALES[:3], 0.0001, "of 3 documents, a data.validation of 0.0001 leaves none for validation"),
        (TALES[:1], 0.0, "of 1 document, a data.validation of 0.0 leaves none for validation"),
        (["a"], 0.5, "of 1 document"),
        ([CHAT], 0.5, "of 1 document"),
        (["same"] * 9, 0.999, "of 9 documents, a data.validation of 0.999 leaves none for train"),
    ],
)
def test_a_side_without_documents_is_refused(
    tokenizer: Any, tmp_path: Path, corpus: list[Document], fraction: float, expected: str
) -> None:
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        prepare(corpus, tokenizer, tmp_path, fraction=fraction)
    assert "use more documents" in str(error.value) or "name another data.source" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_validation_documents_of_their_own(tokenizer: Any, tmp_path: Path) -> None:
    shards = prepare(TALES[:5], tokenizer, tmp_path, validation=iter(TALES[5:7]))
    assert [texts(shard, tokenizer) for shard in shards] == [TALES[:5], TALES[5:7]]
    with pytest.raises(UserError, match=r"no document for validation; name another data.validation_source"):
        prepare(TALES[:5], tokenizer, tmp_path, validation=[])
    with pytest.raises(UserError, match=r"no document for train; name another data.source"):
        prepare([], tokenizer, tmp_path, validation=TALES)
