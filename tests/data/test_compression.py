"""Compressed files read like the files they were made from, and say so when they are damaged."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tinytale_mlx.data import compression, sources
from tinytale_mlx.data.sources import Document
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import DataRecipe

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., list[Document]]
Refusal = Callable[..., str]

TEXTS = ["one, with a comma", "two\nlines", "thr\u00e9e \u201cquoted\u201d"]
FILES = {
    "a.txt": "\n<|endoftext|>\n".join(TEXTS),
    "a.md": "\n<|endoftext|>\n".join(TEXTS),
    "a.jsonl": '{"text": "one, with a comma"}\n{"text": "two\\nlines"}\n{"text": "thr\u00e9e \u201cquoted\u201d"}\n',
    "a.json": '["one, with a comma", "two\\nlines", "thr\u00e9e \u201cquoted\u201d"]',
    "a.csv": 'id,text\n1,"one, with a comma"\n2,"two\nlines"\n3,thr\u00e9e \u201cquoted\u201d\n',
    "a.tsv": 'id\ttext\n1\tone, with a comma\n2\t"two\nlines"\n3\tthr\u00e9e \u201cquoted\u201d\n',
}


def content(name: str) -> bytes:
    if name != "a.parquet":
        return FILES[name].encode()
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table({"text": TEXTS}), sink)
    return sink.getvalue().to_pybytes()


def packed(raw: bytes, suffix: str) -> bytes:
    """By Python's own gzip; Python 3.11 has no Zstandard."""
    if suffix == ".gz":
        return gzip.compress(raw)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(raw)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".GZ"])
@pytest.mark.parametrize("name", [*FILES, "a.parquet"])
def test_every_format_with_every_compression(read: Read, write: Write, name: str, suffix: str) -> None:
    raw = content(name)
    path = write(name + suffix, packed(raw, suffix.lower()) if suffix else raw)
    assert read(path) == read(path.parent) == TEXTS


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_several_compressed_pieces_are_one_file(read: Read, write: Write, suffix: str) -> None:
    """`cat a.gz b.gz` and parallel compressors make such files."""
    assert read(write("a.txt" + suffix, packed(b"one\n", suffix) + packed(b"two\n", suffix))) == ["one\ntwo\n"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_cut_short(refusal: Refusal, write: Write, name: str, suffix: str) -> None:
    raw = packed(content(name), suffix)
    path = write(name + suffix, raw[: len(raw) - 5])
    assert refusal(path) == f"{path} is cut short: the compressed data end before they should"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_came_before_the_cut_was_read(write: Write, suffix: str) -> None:
    """A large file that is cut is not read in vain before it is refused; nor is it taken for a whole one."""
    lines = random.Random(0).randbytes(2_000_000).hex().encode()
    path = write(f"a.txt{suffix}", packed(b"first\n<|endoftext|>\n" + lines, suffix)[:500_000])
    stream = sources.documents(DataRecipe(source=str(path)), seed=0)
    assert next(stream) == "first"
    with pytest.raises(UserError, match="cut short"):
        next(stream)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damaged_or_not_compressed(refusal: Refusal, write: Write, suffix: str) -> None:
    path = write(f"a.txt{suffix}", b"just text")
    assert refusal(path).startswith(f"{path} is damaged, cut short, or not what its suffix says (")


def test_a_wrong_byte_is_noticed_by_its_checksum(refusal: Refusal, write: Write) -> None:
    raw = bytearray(gzip.compress(random.Random(0).randbytes(1000).hex().encode()))
    raw[len(raw) // 2] ^= 255
    assert "is damaged" in refusal(write("a.txt.gz", bytes(raw)))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_empty_inside(refusal: Refusal, write: Write, suffix: str) -> None:
    path = write(f"a.txt{suffix}", packed(b"", suffix))
    assert refusal(path) == f"{path} is empty: it holds no document"
    assert "is empty" in refusal(write(f"b.txt{suffix}", b""))


def test_a_bad_line_in_a_compressed_file_is_named(refusal: Refusal, write: Write) -> None:
    assert "a.jsonl.gz, line 2 is not valid JSON" in refusal(write("a.jsonl.gz", gzip.compress(b'"one"\n{bad\n')))
    assert "b.txt.gz looks like a binary file" in refusal(write("b.txt.gz", gzip.compress(b"PK\x03\x04\x00\x00")))
    assert "c.txt.gz is UTF-16" in refusal(write("c.txt.gz", gzip.compress("tale".encode("utf-16"))))


def test_a_compressed_file_of_another_format(refusal: Refusal, write: Write) -> None:
    for name in ("a.gz", "a.html.gz", "a.tar.gz"):
        assert f"{name}: .gz files are not supported" in refusal(write(name, gzip.compress(b"text")))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_unpacked_size(write: Write, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = random.Random(0).randbytes(1_000_000).hex().encode()  # compresses to about half, evenly
    path = write(f"a.txt{suffix}", packed(raw, suffix) if suffix else raw)
    assert compression.unpacked_size(path) == len(raw)
    monkeypatch.setattr(compression, "SAMPLE", 1 << 19)
    assert abs(compression.unpacked_size(path) - len(raw)) < 0.25 * len(raw)
