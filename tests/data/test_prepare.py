"""A preparation cut short leaves no wrong shard; a finished one is reused until something changes."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx.data import encode
from tinytale_mlx.data.prepare import data_key, open_or_prepare, prepare, read_report
from tinytale_mlx.data.shards import Shards, open_shards
from tinytale_mlx.data.sources import Document
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import CleanRecipe, DataRecipe
from tinytale_mlx.tokenizers import CharTokenizer

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
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 100)
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


@pytest.mark.parametrize("replaced", range(1, 7))
def test_killed_preparation_is_recognised_and_redone_to_the_byte(tokenizer: Any, tmp_path: Path, replaced: int) -> None:
    """kill -9 before each of the six files of the shards is put in place, over an older preparation."""
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
    real = encode.encode_some

    def counted(encoder: encode.Encoder, items: list[encode.Item]) -> encode.Encoded:
        calls.append(len(items))
        return real(encoder, items)

    monkeypatch.setattr(encode, "encode_some", counted)
    return calls


def test_the_same_recipe_reuses_its_shards(tokenizer: Any, tmp_path: Path, corpus: Path, encodings: list[int]) -> None:
    data = DataRecipe(source=str(corpus))
    first = open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    folder = tmp_path / "data" / first.train.key
    before = contents(folder)
    second = open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    assert isinstance(second, Shards)
    assert encodings == [300]
    assert contents(folder) == before
    assert first.train.key == second.train.key


def test_a_shard_that_was_cut_short_is_prepared_again(
    tokenizer: Any, tmp_path: Path, corpus: Path, encodings: list[int]
) -> None:
    data = DataRecipe(source=str(corpus))
    open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    folder = tmp_path / "data" / data_key(data, tokenizer, seed=0)
    before = contents(folder)
    os.truncate(folder / "train.bin", 10)
    open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    assert contents(folder) == before
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


# ---------------------------------------------------------------------- cleaning, workers, reports
def side_texts(shards: Shards, tokenizer: Any) -> list[list[str]]:
    return [
        [tokenizer.decode(shard.document(number).tolist()) for number in range(shard.documents)] for shard in shards
    ]


@pytest.mark.parametrize("duplicates", ["keep", "exact", "near"])
def test_worker_processes_write_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, duplicates: Any
) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 1000)
    tokenizer = CharTokenizer.train(TALES)  # of the package, so that another process can import it
    corpus: list[Document] = [*TALES, *TALES[:50], *(text.upper() for text in TALES[50:90])]
    clean = CleanRecipe(lowercase=duplicates != "near", duplicates=duplicates)
    for workers in (1, 2):
        prepare(corpus, tokenizer, tmp_path / str(workers), clean=clean, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_what_cleaning_left_out_is_told(tokenizer: Any, tmp_path: Path) -> None:
    corpus: list[Document] = [*TALES, *(text.upper() for text in TALES[:20]), "<b>bold</b> &amp; fine, not short", "x"]
    clean = CleanRecipe(html=True, lowercase=True, min_characters=5, duplicates="exact")
    shards = prepare(corpus, tokenizer, tmp_path, clean=clean)
    train, validation = side_texts(shards, tokenizer)
    assert sorted(train + validation) == sorted([*(text.lower() for text in TALES), "bold & fine, not short"])
    report = read_report(tmp_path)
    assert report["cleaning"]["documents"] == 322
    assert report["cleaning"]["dropped"] == {
        "empty": 0, "too_short": 1, "too_long": 0, "duplicate": 20, "near_duplicate": 0
    }  # fmt: skip
    assert report["cleaning"]["changed"] == {"html": 1, "lowercase": 320}
    assert {"raw": TALES[0], "cleaned": TALES[0].lower()} in report["samples"]
    assert shards.train.bytes + shards.validation.bytes == sum(len(text) for text in train + validation)


def test_the_side_is_that_of_the_cleaned_text(tokenizer: Any, tmp_path: Path) -> None:
    """What cleaning makes equal is never on both sides."""
    corpus: list[Document] = [text for tale in TALES for text in (tale, tale.upper())]
    shards = prepare(corpus, tokenizer, tmp_path, fraction=0.3, clean=CleanRecipe(lowercase=True))
    train, validation = map(set, side_texts(shards, tokenizer))
    assert train
    assert validation
    assert not train & validation


def test_a_single_text_is_cleaned_and_then_cut(tokenizer: Any, tmp_path: Path) -> None:
    text = "".join(TALES)
    shards = prepare([text], tokenizer, tmp_path, fraction=0.1, clean=CleanRecipe(lowercase=True))
    (train,), (validation,) = side_texts(shards, tokenizer)
    assert train + validation == text.lower()
    assert read_report(tmp_path)["cleaning"]["documents"] == 1
    with pytest.raises(UserError, match="cleaning leaves nothing"):
        prepare([text], tokenizer, tmp_path, clean=CleanRecipe(max_characters=10))


def test_skipped_rows_are_told(tokenizer: Any, tmp_path: Path, corpus: Path) -> None:
    corpus.write_text(corpus.read_text() + "\n{broken\n" + json.dumps({"txt": "no text"}))
    data = DataRecipe(source=str(corpus), skip_bad=True)
    shards = open_or_prepare(data, tokenizer, tmp_path / "data", seed=0)
    (skipped,) = read_report(shards.train.path.parent)["skipped"].values()
    assert skipped["rows"] == 2
    assert "line 301" in skipped["first"]


def test_two_that_want_the_same_prepare_it_once(
    tokenizer: Any, tmp_path: Path, corpus: Path, encodings: list[int]
) -> None:
    data = DataRecipe(source=str(corpus))
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(open_or_prepare, data, tokenizer, tmp_path / "data", 0) for _ in range(2)]
        first, second = (job.result() for job in jobs)
    assert encodings == [300]
    assert first.train.path == second.train.path
