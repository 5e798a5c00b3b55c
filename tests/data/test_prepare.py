"""A preparation cut short leaves no wrong shard; a finished one is reused until something changes."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx.data import prepare as preparation
from tinytale_mlx.data.prepare import data_key, open_or_prepare, prepare
from tinytale_mlx.data.shards import Shards, open_shards
from tinytale_mlx.data.sources import Document
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import DataRecipe

TALES = [f"Tale {number}: the fox ran {number} miles.\n" for number in range(300)]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


class Interrupted(Exception):
    pass


def interrupted(after: int) -> Iterator[Document]:
    yield from TALES[:after]
    raise Interrupted


def test_an_error_while_reading_leaves_nothing_and_takes_nothing(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "BATCH_CHARACTERS", 100)
    with pytest.raises(Interrupted):
        prepare(interrupted(100), tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []
    prepare(TALES, tokenizer, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(Interrupted):
        prepare(interrupted(100), tokenizer, tmp_path)
    assert contents(tmp_path) == before


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from conftest import ByteTokenizer
    from tinytale_mlx.data import prepare as preparation

    real, left = os.replace, [{replaced}]
    def replace(*paths):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        real(*paths)
    os.replace = replace
    tales = [f"Another tale {{number}}" for number in range(300)]
    preparation.prepare(tales, ByteTokenizer(), Path({directory!r}), key="new")
"""


@pytest.mark.parametrize("replaced", range(6))
def test_killed_preparation_is_recognised_and_redone_to_the_byte(tokenizer: Any, tmp_path: Path, replaced: int) -> None:
    """kill -9 before each of the six files is put in place, over an older preparation."""
    prepare(TALES, tokenizer, tmp_path / "killed", key="old")
    code = KILLED.format(tests=str(Path(__file__).parent), directory=str(tmp_path / "killed"), replaced=replaced)
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match=r"\.json is missing"):
        open_shards(tmp_path / "killed")
    for name in ("killed", "straight"):
        prepare(TALES, tokenizer, tmp_path / name, key="again")
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


def test_full_disk_is_one_sentence(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=f"could not be written to {re.escape(str(tmp_path))}: No space left"):
        prepare(TALES, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "tales.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TALES))
    return path


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every batch of documents that is encoded."""
    calls: list[int] = []
    real = preparation.encode_documents

    def counted(documents: list[Document], tokenizer: Any) -> list[list[int]]:
        calls.append(len(documents))
        return real(documents, tokenizer)

    monkeypatch.setattr(preparation, "encode_documents", counted)
    return calls


def test_the_same_recipe_reuses_its_shards(tokenizer: Any, tmp_path: Path, corpus: Path, encodings: list[int]) -> None:
    data = DataRecipe(source=str(corpus))
    first = open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    before = contents(tmp_path / "data")
    second = open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    assert isinstance(second, Shards)
    assert encodings == [300]
    assert contents(tmp_path / "data") == before
    assert first.train.key == second.train.key


def test_a_shard_that_was_cut_short_is_prepared_again(
    tokenizer: Any, tmp_path: Path, corpus: Path, encodings: list[int]
) -> None:
    data = DataRecipe(source=str(corpus))
    open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    before = contents(tmp_path / "data")
    os.truncate(tmp_path / "data" / "train.bin", 10)
    open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    assert contents(tmp_path / "data") == before
    assert len(encodings) == 2


def change_text(path: Path) -> None:
    status = path.stat()
    path.write_text(path.read_text().replace("fox", "cat"))  # of the same size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda data, tokenizer: (data.model_copy(update={"validation": 0.2}), tokenizer),
        lambda data, tokenizer: (data.model_copy(update={"documents": 200}), tokenizer),
        lambda data, tokenizer: (data.model_copy(update={"validation_source": data.source}), tokenizer),
        lambda data, tokenizer: (data, type(tokenizer)(extra=1)),
        lambda data, tokenizer: (change_text(Path(data.source)), (data, tokenizer))[1],
    ],
)
def test_any_change_prepares_again(
    tokenizer: Any, tmp_path: Path, corpus: Path, encodings: list[int], change: Callable[..., Any]
) -> None:
    data = DataRecipe(source=str(corpus))
    open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    done = len(encodings)
    data, tokenizer = change(data, tokenizer)
    shards = open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    assert len(encodings) > done
    assert {shard.key for shard in shards} == {data_key(data, tokenizer, seed=0)}


def test_the_seed_counts_for_the_tales_only(tokenizer: Any, corpus: Path) -> None:
    text, tales = DataRecipe(source=str(corpus)), DataRecipe()
    assert data_key(text, tokenizer, 0) == data_key(text, tokenizer, 1)
    assert data_key(tales, tokenizer, 0) != data_key(tales, tokenizer, 1)
    assert data_key(tales, tokenizer, 0) == data_key(tales, tokenizer, 0)


def test_a_missing_source_is_refused_even_where_shards_exist(tokenizer: Any, tmp_path: Path, corpus: Path) -> None:
    data = DataRecipe(source=str(corpus))
    open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    corpus.unlink()
    with pytest.raises(UserError, match="there is no such file"):
        open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
