"""Every kind of source gives its documents; what is not there is said before anything is read."""

import gzip
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tinytale_mlx.data.files import read_rows
from tinytale_mlx.data.sources import Document, documents, names, parts, resolve, size
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import DataRecipe, SourceRecipe

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
Write = Callable[[str, str | bytes], Path]
Read = Callable[..., list[Document]]
Refusal = Callable[..., str]


def test_folder_glob_and_list(read: Read, write: Write, tmp_path: Path) -> None:
    write("b/2.txt", "two")
    write("b/c/3.jsonl", '{"text": "three"}')
    write("a.txt", "one")
    write("b/notes.html", "not supported, so not read from a folder")
    write("README.md", "describes the others, so not read from a folder")
    write(".hidden/x.txt", "hidden")
    assert read(tmp_path) == ["one", "two", "three"]
    assert read(f"{tmp_path}/b/*.txt") == ["two"]
    assert read(f"{tmp_path}/*.md") == ["describes the others, so not read from a folder"]
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
    path = write("a.html", "text\none")
    supported = ".txt, .md, .jsonl, .json, .csv, .tsv and .parquet, each also with .gz or .zst after it"
    expected = f"{path}: .html files are not supported; supported are {supported}"
    assert refusal(path) == refusal(f"{tmp_path}/*.html") == expected
    assert "without a suffix is not supported" in refusal(write("plain", "one"))


def test_file_names_are_not_taken_for_data_sets(refusal: Refusal) -> None:
    for name in ("stories/a.csv", "stories/a.parquet", "stories/a.jsonl.zst", "stories/a.gz"):
        assert f"{name}: there is no such file or folder" in refusal(name)


# ---------------------------------------------------------------------- parts
def test_a_source_or_a_list_of_them_is_one_part() -> None:
    for source, name in (("tales", "tales"), (["a.txt", "b.txt"], "a.txt + b.txt")):
        data = DataRecipe(source=source)
        assert parts(data) == [(name, data, None, None)]


def test_parts_of_a_mixture() -> None:
    mixture = [
        SourceRecipe(source="tales", weight=2.0, documents=10),
        SourceRecipe(source="a.csv", field="story", epochs=3),
        SourceRecipe(source="a.csv"),
    ]
    found = parts(DataRecipe(source=mixture, field="body", documents=50, skip_bad=True))
    assert [part.name for part in found] == ["tales", "a.csv", "a.csv again"]
    assert [(part.weight, part.epochs) for part in found] == [(2.0, None), (None, 3), (None, None)]
    assert [part.data for part in found] == [
        DataRecipe(source="tales", field="body", documents=10, skip_bad=True),
        DataRecipe(source="a.csv", field="story", documents=50, skip_bad=True),
        DataRecipe(source="a.csv", field="body", documents=50, skip_bad=True),
    ]
    assert names(mixture) == ["tales", "a.csv", "a.csv"]


def test_a_mixture_is_read_part_by_part(write: Write) -> None:
    first, second = write("a.csv", "story\none\ntwo\n"), write("b.jsonl", '"three"\n"four"\n')
    mixture = [SourceRecipe(source=str(first), field="story"), SourceRecipe(source=str(second), documents=1)]
    assert list(documents(DataRecipe(source=mixture), seed=0)) == ["one", "two", "three"]
    assert resolve(mixture) == [first, second]
    with pytest.raises(UserError, match="there is no such file"):
        documents(DataRecipe(source=[*mixture, SourceRecipe(source="missing.txt")]), seed=0)


# ---------------------------------------------------------------------- sizes
def test_size_counts_text_not_compressed_bytes(write: Write, tmp_path: Path) -> None:
    text = b"the same words again and again, so that they compress well\n" * 1000
    write("a.txt", text)
    write("b.txt.gz", gzip.compress(text))
    pa.parquet.write_table(pa.table({"text": [f"{n:050}" for n in range(20_000)]}), tmp_path / "c.parquet")
    unpacked = 50 * 20_000
    assert size(DataRecipe(source=f"{tmp_path}/*.txt*")) == 2 * len(text)
    found = size(DataRecipe(source=[str(tmp_path / "a.txt"), str(tmp_path / "c.parquet")]))
    assert found is not None
    assert abs(found - len(text) - unpacked) < 0.2 * unpacked
    assert size(DataRecipe(source=["tales", str(tmp_path / "a.txt")])) is None
    assert size(DataRecipe(source="owner/name")) is None


def test_size_of_a_damaged_file(write: Write) -> None:
    for path in (write("a.parquet", "none"), write("a.txt.gz", "none")):
        with pytest.raises(UserError, match=f"{path.name} is damaged"):
            size(DataRecipe(source=str(path)))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
@pytest.mark.parametrize(
    ("name", "field", "count", "kind"),
    [
        ("tinystories/train.jsonl", "text", 982, str),
        ("shakespeare/input.txt", "text", 1, str),
        ("wikitext-2/valid.txt", "text", 1, str),
        ("wikisql/*.jsonl", "text", 1100, str),
        ("gsm8k/test.jsonl", "text", 1319, list),
        ("instruct/instruction-data.json", "text", 1100, list),
        ("instruct", "output", 1100, str),
        ("preference/*.json", "text", 1100, list),
    ],
)
def test_shared_data_sets(read: Read, name: str, field: str, count: int, kind: type) -> None:
    corpus = read(f"{SHARED}/{name}", field=field)
    assert len(corpus) == count
    assert all(isinstance(document, kind) for document in corpus)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
def test_shared_preferences_have_all_their_fields() -> None:
    found = [row for row, _ in read_rows(SHARED / "preference" / "instruction-data-with-preference.json", False)]
    assert len(found) == 1100
    assert all({"instruction", "chosen", "rejected"} <= row.keys() for row in found)
