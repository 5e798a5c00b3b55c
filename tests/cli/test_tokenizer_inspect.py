"""`tinytale tokenizer encode`, `decode` and `inspect`: text to ids and back, and how well, of one found by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinytale_mlx.tokenizers import ByteBPE, load_tokenizer


# ---------------------------------------------------------------------- encode and decode
def test_encode(folder: Path, tok: Path, tinytale) -> None:
    text = "The cat, née <|eos|>\n"
    expected = load_tokenizer(tok).encode(text)
    assert tinytale("tokenizer", "encode", tok, text).out == " ".join(map(str, expected)) + "\n"
    assert tinytale("tokenizer", "encode", tok, "-", stdin=text).out == " ".join(map(str, expected)) + "\n"
    Path("a.txt").write_bytes(text.encode())
    found = tinytale("tokenizer", "encode", tok, "--file", "a.txt", "--json").json
    assert found["ids"] == expected
    assert found["tokens"][:2] == ["The", " cat"]
    assert "\\xc3" in found["tokens"]
    plain = tinytale("tokenizer", "encode", tok, text, "--no-special", "--json").json
    assert 3 in expected
    assert 3 not in plain["ids"]


def test_encode_pieces(tok: Path, tinytale) -> None:
    said = tinytale("tokenizer", "encode", tok, "The cat\n\tx<|eos|>", "--pieces").out
    assert said == "The│·cat│↵\n│→│x│<|eos|>\n"


@pytest.mark.parametrize("text", ["", "\0", "\r\n", "née 日本 😀\n\n", "<|eos|> <|pad|>", " 12 cats "])
def test_round_trip(text: str, tok: Path, tinytale) -> None:
    ids = tinytale("tokenizer", "encode", tok, text).out
    assert tinytale("tokenizer", "decode", tok, stdin=ids).out == text
    assert tinytale("tokenizer", "decode", tok, ids).out == text


def test_round_trip_through_pipes(folder: Path, tok: Path) -> None:
    """To the last byte, line ends included."""
    content = text = "née\r\n日本 \x85 end".encode()
    for command in ("encode", "decode"):
        program = f"from tinytale_mlx.cli.app import main; main(['tokenizer', {command!r}, {str(tok)!r}, '-'])"
        content = subprocess.run(
            [sys.executable, "-c", program], input=content, stdout=subprocess.PIPE, check=True,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        ).stdout  # fmt: skip
    assert content == text


def test_decode(tok: Path, tinytale) -> None:
    tokenizer = load_tokenizer(tok)
    ids = [*tokenizer.encode("The cat"), 3]
    for form in (["[" + ", ".join(map(str, ids)) + "]"], [*map(str, ids)]):
        assert tinytale("tokenizer", "decode", tok, *form).out == "The cat<|eos|>"
    assert tinytale("tokenizer", "decode", tok, *map(str, ids), "--no-special").out == "The cat"
    found = tinytale("tokenizer", "decode", tok, *map(str, ids), "--json").json
    assert found == {"text": "The cat<|eos|>", "tokens": ["The", " cat", "<|eos|>"]}
    assert tinytale("tokenizer", "decode", tok, *map(str, ids), "--pieces").out == "The│·cat│<|eos|>\n"


# ---------------------------------------------------------------------- inspect
def test_inspect(folder: Path, book: str, tok: Path, tinytale) -> None:
    other = ByteBPE.train([book], 264)
    other.save("other")
    result = tinytale("tokenizer", "inspect", tok, "--data", "book.txt", "--compare", "other", "--json").json
    assert (result["tokenizer"], result["kind"], result["vocab_size"]) == (str(tok), "byte-level BPE", 300)
    assert result["special_tokens"][3] == {"id": 3, "token": "<|eos|>", "roles": ["eos"]}
    mine, theirs = result["figures"]
    assert mine["bytes"] == theirs["bytes"] == theirs["tokens"] == len(book)
    assert mine["bytes_per_token"] > 2 > theirs["bytes_per_token"] == 1
    assert mine["unknown"] == 0
    assert "".join(one["text"] for one in result["pieces"]).startswith("The cat number 0 went home.")
    said = tinytale("tokenizer", "inspect", tok, "--data", "book.txt", "--compare", "other").out
    for part in ("byte-level BPE", "300 tokens", "3 <|eos|> (eos)", "other", "bytes per token", "The│·cat│·"):
        assert part in said


def test_inspect_a_text(tok: Path, tinytale) -> None:
    result = tinytale("tokenizer", "inspect", tok, "--text", "The é<|eos|>", "--json").json
    assert [one["text"] for one in result["pieces"]] == ["The", " ", "\\xc3", "\\xa9", "<|eos|>"]
    assert result["figures"][0]["tokens"] == 5
    assert tinytale("tokenizer", "inspect", tok, "--text", "").code == 0
    assert "give one of them" in tinytale("tokenizer", "inspect", tok, "--text", "a", "--data", "b").complaint


def test_inspect_tales(tok: Path, tinytale) -> None:
    result = tinytale("tokenizer", "inspect", tok, "--json").json
    assert result["text"] == "200 embedded tales"
    assert result["figures"][0]["tokens"] > 10_000


def test_inspect_what_cannot_write_tales(folder: Path, tinytale) -> None:
    trained = tinytale("tokenizer", "train", "-d", "book.txt", "--kind", "char", "--set", "tokenizer.special_tokens=[]")
    assert trained.code == 0, trained.err
    result = tinytale("tokenizer", "inspect", "tokenizers/book-char", "--json").json
    assert result["figures"] == result["pieces"] == []
    assert "pass --data or --text" in tinytale("tokenizer", "inspect", "tokenizers/book-char").out
    said = tinytale("tokenizer", "inspect", "tokenizers/book-char", "--text", "Zoo").complaint
    assert "'Z' is not in the vocabulary" in said


def test_inspect_gpt2(shared_data: Path, tok: Path, tinytale) -> None:
    result = tinytale("tokenizer", "inspect", tok, "--compare", shared_data / "gpt2", "--json").json
    assert result["figures"][1]["vocab_size"] == 50257
    assert tinytale("tokenizer", "encode", shared_data / "gpt2", "Hello world").out == "15496 995\n"


def test_in_colour(tok: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours differ in their background where there are colours, and have a bar between them where not."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    said = tinytale("tokenizer", "encode", tok, "The cat", "--pieces").out
    assert "│" not in said
    assert said.count("\x1b[30;46m") == said.count("\x1b[30;43m") == 1
    monkeypatch.setenv("NO_COLOR", "1")
    assert tinytale("tokenizer", "encode", tok, "The cat", "--pieces").out == "The│·cat\n"


# ---------------------------------------------------------------------- found by name
def test_names(trained: Path, tinytale, tmp_path: Path) -> None:
    ids = tinytale("tokenizer", "encode", "a b c").out
    for name in ("nano", "runs/nano", "runs/nano/model", "nano.yaml"):
        assert tinytale("tokenizer", "encode", name, "a b c").out == ids
    assert tinytale("tokenizer", "inspect", "--json").json["tokenizer"] == "runs/nano"
    assert "`tinytale tokenizer train tiny-llm" not in tinytale("tokenizer", "encode", "tale", "a").complaint
