"""A text that comes in on standard input can be read as often as a file."""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tinytale_mlx.data import standard_input
from tinytale_mlx.data.sources import Document, Skipped, documents, resolve, size
from tinytale_mlx.recipe import DataRecipe

Read = Callable[..., list[Document]]
Refusal = Callable[..., str]


class Pipe:
    def __init__(self, content: bytes, terminal: bool = False) -> None:
        self.buffer, self._terminal = io.BytesIO(content), terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """pipe(content): what comes in on standard input."""

    def pipe(content: bytes, terminal: bool = False) -> None:
        standard_input.spool.cache_clear()
        monkeypatch.setattr("sys.stdin", Pipe(content, terminal))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield pipe
    standard_input.spool.cache_clear()


def test_text_with_separators(read: Read, pipe: Callable[..., None]) -> None:
    pipe(b"one\n<|endoftext|>\ntwo\n")
    assert read("-") == read("-") == ["one", "two"]


@pytest.mark.parametrize("before", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_json_lines(read: Read, pipe: Callable[..., None], before: bytes) -> None:
    pipe(before + b'{"text": "one"}\n{"question": "Why?", "answer": "So."}\n')
    conversation = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    assert read("-") == read(["-"]) == ["one", conversation]


def test_it_is_read_when_a_document_is_asked_for(pipe: Callable[..., None]) -> None:
    pipe(b"text")
    assert resolve("-") == ["-"]
    stream = documents(DataRecipe(source="-"), seed=0)
    assert size(DataRecipe(source="-")) is None
    assert standard_input.spool.cache_info().misses == 0
    assert next(stream) == "text"


def test_digest(pipe: Callable[..., None]) -> None:
    pipe(b"some text")
    assert standard_input.spool().digest == hashlib.blake2b(b"some text", digest_size=16).hexdigest()


def test_bad_input_is_named(refusal: Refusal, pipe: Callable[..., None]) -> None:
    for content, expected in (
        (b'{"text": "one"}\n{bad\n', "standard input, line 2 is not valid JSON"),
        (b"one\ncaf\xe9 au lait\n", "standard input, line 2: byte 0xe9"),
        (b"PK\0\0", "standard input looks like a binary file"),
        (b"", "standard input is empty: it holds no document"),
    ):
        pipe(content)
        assert refusal("-").startswith(expected)


def test_bad_rows_are_counted(pipe: Callable[..., None]) -> None:
    pipe(b'{"text": "one"}\n{bad\n')
    skipped = Skipped()
    assert list(documents(DataRecipe(source="-", skip_bad=True), 0, skipped)) == ["one"]
    assert skipped.counts == {"standard input": 1}


def test_a_terminal_is_not_waited_for(refusal: Refusal, pipe: Callable[..., None]) -> None:
    pipe(b"", terminal=True)
    assert refusal("-").startswith("nothing comes in on standard input: pipe a text into it")


def test_a_full_disk(refusal: Refusal, pipe: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(b"text")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/to/be/found")
    assert "standard input could not be kept in /nowhere/to/be/found: No such file" in refusal("-")


def test_a_real_pipe_leaves_nothing_behind(tmp_path: Path) -> None:
    code = """
import os
from tinytale_mlx.data.sources import documents
from tinytale_mlx.recipe import DataRecipe
data = DataRecipe(source="-")
print([list(documents(data, seed=0)) for _ in range(2)], len(os.listdir(os.environ["TMPDIR"])))
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"one\n<|endoftext|>\ntwo", capture_output=True, env=environment, check=True
    )
    assert done.stdout.decode().strip() == "[['one', 'two'], ['one', 'two']] 1"
    assert list(tmp_path.iterdir()) == []
