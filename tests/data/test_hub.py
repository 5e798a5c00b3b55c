"""Data sets of the hub, on folders: `load_dataset` takes one where it takes owner/name, and reads it the same way."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinytale_mlx.data import hub
from tinytale_mlx.data.hub import DataSet, parse
from tinytale_mlx.data.sources import Document, Skipped, documents, resolve
from tinytale_mlx.recipe import DataRecipe

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
Write = Callable[[str, str | bytes], Path]
Read = Callable[..., list[Document]]
Refusal = Callable[..., str]

CARD = """---
configs:
- config_name: first
  data_files: first.jsonl
- config_name: second
  data_files: second.jsonl
---
"""


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there, what is downloaded stays in the test's own folder, and names are folders in it."""
    import datasets

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_check_connection", lambda source: None)


@pytest.fixture
def data_set(write: Write) -> None:
    write("owner/tales/train.jsonl", '{"story": "one", "text": "1"}\n{"story": "two", "text": "2"}\n')
    write("owner/tales/validation.jsonl", '{"story": "three", "text": "3"}\n')


def test_what_a_source_says() -> None:
    assert parse("tinystories") == (DataSet("roneneldan/TinyStories"), "train", None)
    assert parse("wikitext-2:test") == (DataSet("Salesforce/wikitext", "wikitext-2-raw-v1", True), "test", None)
    assert parse("owner/na.me") == (DataSet("owner/na.me"), "train", None)
    assert parse("owner/name@some-v1.0:validation:story") == (DataSet("owner/name", "some-v1.0"), "validation", "story")
    assert parse("owner/name::a story") == (DataSet("owner/name"), "train", "a story")
    assert parse("Salesforce/wikitext@wikitext-103-v1") == (
        DataSet("Salesforce/wikitext", "wikitext-103-v1", True), "train", None,
    )  # fmt: skip
    for other in ("tale", "tinystories@x", "a/b/c", "owner/name:a:b:c", "/owner/name", "owner/", "-", "owner/name@"):
        assert parse(other) is None


def test_names_of_data_sets_are_sources() -> None:
    for name in ("tinystories", "wikitext-2:validation", "owner/name", "owner/name@config", "owner/na.me:train:story"):
        assert resolve(name) == [name]


def test_out_of_reach_is_one_sentence(refusal: Refusal) -> None:
    for streaming in (True, False):
        message = refusal("tinystories", streaming=streaming)
        assert re.fullmatch("tinystories is no file .* Hugging Face hub.* cannot be reached; pass --data .*", message)


@pytest.mark.usefixtures("_connected", "data_set")
@pytest.mark.parametrize("streaming", [True, False])
def test_splits_and_fields(refusal: Refusal, read: Read, tmp_path: Path, streaming: bool) -> None:
    assert read("owner/tales:train", streaming=streaming) == ["1", "2"]
    assert read("owner/tales:validation:story", streaming=streaming) == ["three"]
    assert read("owner/tales::story", streaming=streaming) == ["one", "two"]
    assert read("owner/tales:train", field="story", documents=1, streaming=streaming) == ["one"]
    message = refusal("owner/tales::tale", streaming=streaming)
    assert "owner/tales::tale, row 1: there is no field 'tale' (fields: story, text)" in message
    assert "the data set owner/tales:test could not be read" in refusal("owner/tales:test", streaming=streaming)
    assert any((tmp_path / "cache").rglob("*.arrow")) != streaming


@pytest.mark.usefixtures("_connected")
def test_parquet_data_set(read: Read, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    (tmp_path / "owner" / "tales" / "data").mkdir(parents=True)
    for number in range(2):
        name = f"train-0000{number}-of-00002.parquet"
        pa.parquet.write_table(pa.table({"text": [f"{number}"]}), tmp_path / "owner" / "tales" / "data" / name)
    assert read("owner/tales:train") == ["0", "1"]


@pytest.mark.usefixtures("_connected")
def test_configurations(read: Read, refusal: Refusal, write: Write) -> None:
    write("owner/tales/README.md", CARD)
    write("owner/tales/first.jsonl", '{"text": "one"}\n')
    write("owner/tales/second.jsonl", '{"text": "two"}\n')
    assert read("owner/tales@second") == ["two"]
    assert read("owner/tales@first:train:text") == ["one"]
    message = refusal("owner/tales:train")
    assert "first" in message
    assert message.endswith("name one of them, as in owner/name@configuration")


@pytest.mark.usefixtures("_connected", "data_set")
def test_bad_rows_are_counted(write: Write) -> None:
    write("owner/tales/train.jsonl", '{"text": "one"}\n{"text": null}\n{"text": "two"}\n')
    skipped = Skipped()
    assert list(documents(DataRecipe(source="owner/tales:train", skip_bad=True), 0, skipped)) == ["one", "two"]
    assert skipped.counts == {"owner/tales:train": 1}
    assert "owner/tales:train, row 2: the field 'text' holds null" in skipped.first["owner/tales:train"]


@pytest.mark.usefixtures("_connected", "data_set")
def test_what_was_downloaded_is_read_offline(
    read: Read, refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder in the cache is given the name that it has for a data set of the hub."""
    import datasets

    read("owner/tales:train", streaming=False)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # else the library tries for half a minute
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.move(tmp_path / "cache" / "tales", tmp_path / "cache" / "owner___tales")
    shutil.rmtree(tmp_path / "owner")
    assert read("owner/tales:train", streaming=False) == ["1", "2"]
    assert "cannot be reached" in refusal("owner/tales:train", streaming=True)
    assert "cannot be reached" in refusal("owner/others:train", streaming=False)


# ---------------------------------------------------------------------- WikiText
LINES = ["", " = First = ", "", " Words . ", " = = Part = = ", "", " = not a title = ", "", " = S = ", "", " More . "]


@pytest.mark.usefixtures("_connected")
@pytest.mark.parametrize("streaming", [True, False])
def test_lines_of_wikitext_become_articles(read: Read, write: Write, streaming: bool) -> None:
    lines = [*LINES, "", " 1 = 1 = ", "", " = Second title = ", ""]
    lines[6] = " = not a title"
    rows = (json.dumps({"text": line and line + "\n"}) for line in lines)
    write("Salesforce/wikitext/README.md", CARD.replace("first", "wikitext-2-raw-v1", 1))
    write("Salesforce/wikitext/first.jsonl", "\n".join(rows))
    found = read("wikitext-2", streaming=streaming)
    assert all(isinstance(document, str) for document in found)
    assert [str(document).split(" = ")[1] for document in found] == ["First", "S", "Second title"]
    assert "\n".join(map(str, found)) == "\n".join(lines[1:])


def test_a_title_follows_a_blank_line() -> None:
    rows = [{"text": line} for line in ("", " = First = ", "", " Words . ", " = x = ", " More . ")]
    assert len(list(hub.articles(iter(rows), "text"))) == 2  # the blank row before the first, and the article


@pytest.mark.usefixtures("_connected")
def test_a_row_of_wikitext_without_text_is_refused(refusal: Refusal, write: Write) -> None:
    write("Salesforce/wikitext/train.jsonl", '{"title": "x"}\n')
    assert "row 1: there is no field 'text' (fields: title)" in refusal("Salesforce/wikitext:train")


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
@pytest.mark.usefixtures("_connected")
def test_articles_of_the_real_wikitext(read: Read, write: Write) -> None:
    """60 articles, as its authors say (Merity et al. 2016), and not a line is lost."""
    lines = (SHARED / "wikitext-2" / "valid.txt").read_text("utf-8").splitlines()
    rows = (json.dumps({"text": line + "\n" if line.strip() else ""}) for line in lines)
    write("Salesforce/wikitext/validation.jsonl", "\n".join(rows))
    found = read("Salesforce/wikitext:validation")
    assert len(found) == 60
    joined = [line for document in found for line in str(document).split("\n") if line.strip()]
    assert joined == [line for line in lines if line.strip()]


def test_the_libraries_are_imported_only_where_they_are_needed() -> None:
    code = "import sys, tinytale_mlx.data.sources; sys.exit('datasets' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
