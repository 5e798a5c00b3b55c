"""Every kind of source gives its documents; what is not there is said before anything is read."""

import re
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from tinytale_mlx.data import sources
from tinytale_mlx.data.sources import Document, documents, resolve
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import DataRecipe

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
Write = Callable[[str, str | bytes], Path]
Read = Callable[..., list[Document]]
Refusal = Callable[..., str]


def test_folder_glob_and_list(read: Read, write: Write, tmp_path: Path) -> None:
    write("b/2.txt", "two")
    write("b/c/3.jsonl", '{"text": "three"}')
    write("a.txt", "one")
    write("b/notes.md", "not supported, so not read from a folder")
    write(".hidden/x.txt", "hidden")
    assert read(tmp_path) == ["one", "two", "three"]
    assert read(f"{tmp_path}/b/*.txt") == ["two"]
    assert read(f"{tmp_path}/**/*.txt") == ["one", "two"]
    assert read([f"{tmp_path}/b/c", f"{tmp_path}/a.txt"]) == ["three", "one"]


def test_at_most_so_many_documents_over_all_sources(read: Read, write: Write) -> None:
    first, second = write("a.json", '["1", "2"]'), write("b.json", '["3", "4"]')
    assert read([str(first), str(second)], documents=3) == ["1", "2", "3"]


def test_reading_stops_where_the_documents_end(write: Write) -> None:
    path = write("a.jsonl", '{"text": "good"}\n{bad\n')
    assert list(islice(documents(DataRecipe(source=str(path)), seed=0), 1)) == ["good"]


def test_missing_file(refusal: Refusal, tmp_path: Path) -> None:
    message = refusal(tmp_path / "nothing.txt")
    assert "nothing.txt: there is no such file" in message
    assert "tinystories" in message


def test_missing_file_is_noticed_before_anything_is_read(write: Write) -> None:
    data = DataRecipe(source=[str(write("a.txt", "one")), "stories/nothing.jsonl"])
    with pytest.raises(UserError, match=r"stories/nothing\.jsonl: there is no such file"):
        documents(data, seed=0)


def test_misspelled_name(refusal: Refusal) -> None:
    assert refusal("tinystory").endswith("did you mean tinystories?")


def test_empty_list_of_sources(refusal: Refusal) -> None:
    assert "empty list" in refusal([])


def test_glob_and_folder_without_files(refusal: Refusal, tmp_path: Path) -> None:
    assert refusal(f"{tmp_path}/*.txt") == f"no file matches {tmp_path}/*.txt"
    (tmp_path / "empty").mkdir()
    message = refusal(tmp_path / "empty")
    assert message.startswith(f"the folder {tmp_path / 'empty'} holds no file that can be read; supported are .txt")


def test_unsupported_suffix(refusal: Refusal, write: Write, tmp_path: Path) -> None:
    path = write("a.csv", "text\none")
    expected = f"{path}: .csv files are not supported; supported are .txt, .jsonl and .json"
    assert refusal(path) == refusal(f"{tmp_path}/*.csv") == expected
    assert "without a suffix is not supported" in refusal(write("plain", "one"))


def test_names_of_data_sets() -> None:
    for name in ("tinystories", "wikitext-2:validation", "owner/name", "owner/na.me:train:story"):
        assert resolve(name) == [name]


def test_hub_out_of_reach_is_one_sentence(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    message = refusal("tinystories")
    assert re.fullmatch("tinystories is no file .* Hugging Face hub.* cannot be reached; pass --data FILE .*", message)


def test_data_set_is_streamed_through_the_library(
    refusal: Refusal, read: Read, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader's own code on a folder: `load_dataset` takes that where it takes owner/name."""
    write("set/train.jsonl", '{"story": "one", "text": "1"}\n{"story": "two", "text": "2"}\n')
    folder = write("set/validation.jsonl", '{"story": "three", "text": "3"}\n').parent
    monkeypatch.setitem(sources.HUB, "mine", (str(folder), None))
    monkeypatch.setattr(sources, "_check_connection", lambda source: None)
    assert read("mine") == ["1", "2"]
    assert read("mine:validation:story") == ["three"]
    assert read("mine::story") == ["one", "two"]
    assert "mine::tale, row 1: there is no field 'tale' (fields: story, text)" in refusal("mine::tale")
    assert "the data set mine:test could not be read" in refusal("mine:test")


def test_the_library_is_imported_only_for_a_data_set() -> None:
    code = "import sys, tinytale_mlx.data.sources; sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
@pytest.mark.parametrize(
    ("name", "field", "count"),
    [
        ("tinystories/train.jsonl", "text", 982),
        ("shakespeare/input.txt", "text", 1),
        ("wikitext-2/valid.txt", "text", 1),
        ("wikisql/*.jsonl", "text", 1100),
        ("gsm8k/test.jsonl", "text", 1319),
        ("instruct/instruction-data.json", "output", 1100),
    ],
)
def test_shared_data_sets(read: Read, name: str, field: str, count: int) -> None:
    corpus = read(f"{SHARED}/{name}", field=field)
    assert len(corpus) == count
    assert all(isinstance(document, list) == ("gsm8k" in name) for document in corpus)
