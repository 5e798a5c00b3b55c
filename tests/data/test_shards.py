"""Shards hold what was put in, and one that was changed is refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinytale_mlx.data import encode
from tinytale_mlx.data.prepare import prepare
from tinytale_mlx.data.shards import Shard, byte_lengths, open_shards
from tinytale_mlx.data.sources import Document
from tinytale_mlx.data.split import split
from tinytale_mlx.errors import UserError
from tinytale_mlx.tokenizers.chat import encode_chat
from tinytale_mlx.tokenizers.special import SpecialTokens

TALES = [f"Tale {number}: the fox ran {number} miles.\n" for number in range(300)]
CHAT = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A fox, naïve."},
]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def texts(shard: Shard, tokenizer: Any) -> list[str]:
    return [tokenizer.decode(shard.document(number).tolist()) for number in range(shard.documents)]


def test_documents_come_back_in_order(tokenizer: Any, tmp_path: Path) -> None:
    shards = prepare(TALES, tokenizer, tmp_path, fraction=0.1)
    for side, shard in zip(("train", "validation"), shards, strict=True):
        expected = [text for text in TALES if split(text, 0.1) == side]
        assert texts(shard, tokenizer) == expected
        assert shard.bytes == sum(len(text.encode()) for text in expected)
        assert len(shard.tokens) == shard.bytes + 2 * len(expected)
        assert (shard.tokens[shard.offsets[:-1]] == tokenizer.bos_id).all()
        assert (shard.tokens[shard.offsets[1:] - 1] == tokenizer.eos_id).all()
        assert (shard.vocab_size, shard.fingerprint) == (tokenizer.vocab_size, tokenizer.fingerprint)


def test_tokens_are_mapped_and_cannot_be_changed(tokenizer: Any, tmp_path: Path) -> None:
    shard = prepare(TALES, tokenizer, tmp_path).train
    assert isinstance(shard.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        shard.tokens[0] = 1


@pytest.mark.parametrize(("above", "dtype"), [(0, "<u2"), (1, "<u4")])
def test_two_bytes_per_token_as_long_as_they_suffice(
    byte_tokenizer: Any, tmp_path: Path, above: int, dtype: str
) -> None:
    tokenizer = byte_tokenizer(extra=65_536 - 264 + above)
    assert tokenizer.vocab_size == 65_536 + above
    shard = prepare(TALES, tokenizer, tmp_path).train
    assert shard.tokens.dtype == np.dtype(dtype)
    assert (tmp_path / "train.bin").stat().st_size == len(shard.tokens) * np.dtype(dtype).itemsize


def test_batches_of_encoding_do_not_show(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus: list[Document] = [CHAT if number % 7 == 3 else text for number, text in enumerate(TALES)]
    prepare(corpus, tokenizer, tmp_path / "one")
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 100)
    calls: list[tuple[int, int]] = []
    shards = prepare(corpus, tokenizer, tmp_path / "many", report=lambda *counts: calls.append(counts))
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert len(calls) > 50
    assert calls == sorted(calls)
    assert calls[-1] == (300, sum(len(shard.tokens) for shard in shards))


def test_markers_written_in_a_text_stay_text(tokenizer: Any, tmp_path: Path) -> None:
    text = "An <|eos|> and an <|im_start|>."
    shard = prepare([text], tokenizer, tmp_path, validation=["x"]).train
    assert sum(int(token) in tokenizer.special_ids.values() for token in shard.tokens) == 2
    assert texts(shard, tokenizer) == [text]


def test_conversations_are_written_by_the_chat_template(tokenizer: Any, tmp_path: Path) -> None:
    shard = prepare([CHAT, "text"], tokenizer, tmp_path, validation=["x"]).train
    expected = [tokenizer.bos_id, *encode_chat(tokenizer, CHAT), tokenizer.eos_id]
    assert shard.document(0).tolist() == expected
    assert shard.bytes == len("Who are you?A fox, naïve.text".encode())


@pytest.mark.parametrize(
    ("specials", "expected"),
    [
        (SpecialTokens(), b"abc"),
        (SpecialTokens(("<e>",), eos="<e>"), b"abc<e>"),
        (SpecialTokens(("<b>", "<e>"), bos="<b>", eos="<e>"), b"<b>abc<e>"),
        (SpecialTokens(("<x>",), bos="<x>", eos="<x>"), b"abc<x>"),
    ],
)
def test_only_the_borders_a_tokenizer_has(
    byte_tokenizer: Any, tmp_path: Path, specials: SpecialTokens, expected: bytes
) -> None:
    tokenizer = byte_tokenizer(specials)
    shard = prepare(["abc"], tokenizer, tmp_path, validation=["x"]).train
    assert tokenizer.decode_bytes(shard.tokens.tolist(), skip_special=False) == expected


def test_byte_lengths(tokenizer: Any, tmp_path: Path) -> None:
    lengths = byte_lengths(tokenizer)
    assert (lengths.dtype, lengths.shape) == (np.int32, (tokenizer.vocab_size,))
    assert lengths[: len(tokenizer.special_ids)].tolist() == [0] * len(tokenizer.special_ids)
    shard = prepare(["naïve", "tale"], tokenizer, tmp_path, validation=["x"]).train
    assert lengths[shard.tokens].sum() == shard.bytes == 10


@pytest.mark.parametrize("name", ["train.bin", "train.offsets.bin"])
@pytest.mark.parametrize("change", [-1, 1])
def test_changed_size_is_refused(tokenizer: Any, tmp_path: Path, name: str, change: int) -> None:
    prepare(TALES, tokenizer, tmp_path)
    size = (tmp_path / name).stat().st_size
    os.truncate(tmp_path / name, size + change)
    with pytest.raises(UserError, match=f"{name} has {size + change:,} bytes instead of {size:,}"):
        Shard.open(tmp_path / "train.json")


@pytest.mark.parametrize("name", ["train.bin", "train.offsets.bin"])
def test_one_changed_bit_is_noticed(tokenizer: Any, tmp_path: Path, name: str) -> None:
    prepare(TALES, tokenizer, tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} was changed since it was written"):
        Shard.open(tmp_path / "train.json")
    assert Shard.open(tmp_path / "train.json", check=False).documents


def test_a_side_may_be_empty(tokenizer: Any, tmp_path: Path) -> None:
    shards = prepare(TALES, tokenizer, tmp_path, fraction=None)
    assert (shards.train.documents, shards.validation.documents, len(shards.validation.tokens)) == (300, 0, 0)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"dtype": "<u2", "tokens": "many"}', "null"])
def test_strange_index_is_refused(tokenizer: Any, tmp_path: Path, index: str) -> None:
    prepare(TALES, tokenizer, tmp_path)
    (tmp_path / "train.json").write_text(index)
    with pytest.raises(UserError, match="is not the index of a shard"):
        Shard.open(tmp_path / "train.json")


@pytest.mark.parametrize("name", ["train.json", "train.bin", "train.offsets.bin"])
def test_missing_file_is_named(tokenizer: Any, tmp_path: Path, name: str) -> None:
    prepare(TALES, tokenizer, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        open_shards(tmp_path)
