"""CSV, TSV and Parquet: rows become documents, a bad row is named by its line, and large files stay on the disk."""

import csv
import io
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tinytale_mlx.data import tables
from tinytale_mlx.data.files import read_rows
from tinytale_mlx.data.sources import Document, Skipped, documents
from tinytale_mlx.recipe import DataRecipe

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., list[Document]]
Refusal = Callable[..., str]
Parquet = Callable[..., Path]


@pytest.fixture
def parquet(tmp_path: Path) -> Parquet:
    """parquet(name, rows per group, **columns): a file in the test's own folder."""

    def write(name: str, group: int = 1000, /, **columns: object) -> Path:
        pa.parquet.write_table(pa.table(columns), tmp_path / name, row_group_size=group)
        return tmp_path / name

    return write


# ---------------------------------------------------------------------- CSV and TSV
def test_csv_as_others_write_it(read: Read, write: Write) -> None:
    """Commas, quotes and line ends within a field, as Python's writer puts them."""
    texts = ["plain", 'with "quotes", and commas', "two\nlines\n\nand a blank one", "\u00e9", " kept spaces "]
    target = io.StringIO()
    writer = csv.writer(target)
    writer.writerow(["id", "text"])
    writer.writerows(enumerate(texts))
    assert read(write("a.csv", target.getvalue())) == texts


def test_csv_column(read: Read, write: Write) -> None:
    path = write("a.csv", "\ufefftitle, story\r\nno,yes\r\n\r\nnothing,\r\n")
    assert read(path, field="story") == ["yes"]
    assert read(write("a.tsv", "title\tstory\nno\tyes, it is\n"), field="story") == ["yes, it is"]


def test_csv_row_may_be_a_conversation(read: Read, write: Write) -> None:
    expected = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert read(write("a.csv", "question,answer\nHi,Hello\n")) == [expected]


def test_csv_without_the_column(refusal: Refusal, write: Write) -> None:
    message = refusal(write("a.csv", "title,story\nx,y\n"))
    assert "a.csv, line 2: there is no field 'text' (fields: title, story)" in message


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("1\n", "line 5: the header names 2 columns, and here are 1"),
        ("1,two,three\n", "line 5: the header names 2 columns, and here are 3"),
        ('1,"two"x\n', "line 5: the quotes or line ends are not those of CSV"),
        ('1,"never closed\nmore\n', "line 5: the quotes or line ends are not those of CSV (unexpected end of data)"),
    ],
)
def test_bad_csv_row_is_named_by_its_first_line(refusal: Refusal, write: Write, rows: str, expected: str) -> None:
    assert f"a.csv, {expected}" in refusal(write("a.csv", 'id,text\n1,"one\nand two"\n2,more\n' + rows))


def test_bad_csv_rows_can_be_counted(write: Write) -> None:
    path = write("a.csv", 'id,text\n1,one\nbad\n2,"two"x\n3,three\n')
    skipped = Skipped()
    assert list(documents(DataRecipe(source=str(path), skip_bad=True), 0, skipped)) == ["one", "three"]
    assert skipped.counts == {str(path): 2}
    assert "line 3: the header names 2 columns" in skipped.first[str(path)]


def test_csv_that_is_no_text(refusal: Refusal, write: Write) -> None:
    assert "a.csv, line 3: byte 0xe9" in refusal(write("a.csv", b"text\none\ncaf\xe9\n"))
    assert "looks like a binary file" in refusal(write("a.csv", b"text\none\0\n"))
    path = write("a.csv", "text,more\n")
    assert refusal(path) == f"{path} is empty: it holds no document"


def test_long_csv_field(read: Read, write: Write, refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "long " * 100_000  # beyond the limit of 131,072 that Python's reader has by itself
    path = write("a.csv", f'text\n"{text}"\n')
    assert read(path) == [text]
    monkeypatch.setattr(tables, "WHOLE", 1000)
    assert "a.csv, line 2: the quotes or line ends are not those of CSV (field larger than" in refusal(path)


# ---------------------------------------------------------------------- Parquet
@pytest.mark.parametrize("group", [1, 3, 1000])
def test_parquet_in_row_groups(read: Read, parquet: Parquet, group: int) -> None:
    texts = [f"text {number}" for number in range(200)]
    path = parquet("a.parquet", group, id=list(range(200)), text=texts, other=[{"a": [1]}] * 200)
    assert read(path) == texts
    assert read(path, documents=3) == texts[:3]


def test_parquet_of_other_types(read: Read, parquet: Parquet) -> None:
    assert read(parquet("a.parquet", text=pa.array(["a", "b", "a"], pa.large_string()))) == ["a", "b", "a"]
    assert read(parquet("b.parquet", story=pa.array(["a", " ", "a"]).dictionary_encode()), field="story") == ["a", "a"]


def test_parquet_rows_have_all_columns_where_none_is_named(parquet: Parquet) -> None:
    path = parquet("a.parquet", text=["one"], id=[1])
    assert list(read_rows(path, False)) == [({"text": "one", "id": 1}, f"{path}, row 1")]
    assert list(read_rows(path, False, "it", column="text")) == [({"text": "one"}, "it, row 1")]


def test_parquet_conversations(read: Read, parquet: Parquet) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert read(parquet("a.parquet", id=[1], messages=[messages])) == [messages]


def test_parquet_that_can_not_be_used(refusal: Refusal, parquet: Parquet) -> None:
    assert "a.parquet, row 1: there is no field 'text' (fields: a, b)" in refusal(parquet("a.parquet", a=[1], b=["x"]))
    path = parquet("a.parquet", text=["one", None])
    assert "a.parquet, row 2: the field 'text' holds null, not text" in refusal(path)
    path = parquet("a.parquet", text=pa.array([], pa.string()))
    assert refusal(path) == f"{path} is empty: it holds no document"


def test_parquet_damaged(refusal: Refusal, parquet: Parquet, write: Write) -> None:
    whole = parquet("a.parquet", 100, text=[random.Random(n).randbytes(100).hex() for n in range(1000)]).read_bytes()
    for wrong in (whole[:-10], whole[: len(whole) // 2], b"text", b"", whole[:40] + bytes(400) + whole[440:]):
        message = refusal(write("a.parquet", wrong))
        assert "a.parquet is damaged, cut short, or not what its suffix says" in message


def test_invalid_utf8_in_parquet(read: Read, refusal: Refusal, parquet: Parquet) -> None:
    """Which its writers should not, but do not check."""
    raw = pa.array([b"good", b"caf\xe9", b"fine"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    path = parquet("a.parquet", text=text)
    assert "a.parquet, row 2: invalid UTF-8; with data.invalid_utf8: replace" in refusal(path)
    assert read(path, invalid_utf8="replace") == ["good", "caf\ufffd", "fine"]
    assert read(path, skip_bad=True) == ["good", "fine"]


# ---------------------------------------------------------------------- memory
@pytest.mark.parametrize("group", [1000, 1_000_000])
def test_parquet_is_not_held_in_memory(parquet: Parquet, group: int) -> None:
    """Neither by Python nor by Arrow, be it in many row groups or in one."""
    rng = random.Random(0)
    path = parquet("a.parquet", group, text=[rng.randbytes(1000).hex() for _ in range(40_000)], id=range(40_000))
    before, held, count = pa.total_allocated_bytes(), 0, 0
    tracemalloc.start()
    for _ in documents(DataRecipe(source=str(path)), seed=0):
        count += 1
        held = max(held, pa.total_allocated_bytes() - before) if count % 100 == 0 else held
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_000
    assert path.stat().st_size > 70_000_000
    assert held < 7_000_000
    assert peak < 4_000_000
