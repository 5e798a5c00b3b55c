"""Files give their documents, and every kind of bad file one sentence that says where."""

import csv
import gzip
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow  # noqa: F401  what loading it takes is not the reading's
import pytest

from tinytale_mlx.data import text
from tinytale_mlx.data.sources import Document, Skipped, documents
from tinytale_mlx.recipe import DataRecipe

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., list[Document]]
Refusal = Callable[..., str]


def test_txt_without_separator_is_one_document(read: Read, write: Write) -> None:
    assert read(write("a.txt", "one\n\ntwo\n")) == ["one\n\ntwo\n"]


def test_txt_with_separators_is_many(read: Read, write: Write) -> None:
    text = "one\ntwo\n<|endoftext|>\n\nthree\n\n<|endoftext|>\n\n<|endoftext|>\r\nfour <|endoftext|> here"
    assert read(write("a.txt", text)) == ["one\ntwo", "three", "four <|endoftext|> here"]


def test_line_ends_and_byte_order_mark_are_not_text(read: Read, write: Write) -> None:
    assert read(write("a.txt", "\ufeffone\r\ntwo\r\n")) == ["one\ntwo\n"]
    assert read(write("a.jsonl", '\ufeff{"text": "one"}\r\n{"text": "two"}\r\n')) == ["one", "two"]


def test_jsonl_rows_of_every_form(read: Read, write: Write) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [
        {"text": "a tale"},
        {"messages": messages},
        {"id": 3, "question": "Hi", "answer": "Hello"},
        "bare",
    ]
    path = write("a.jsonl", "\n\n".join(map(json.dumps, rows)))
    assert read(path) == ["a tale", messages, messages, "bare"]


def test_json_list_of_objects_or_strings(read: Read, write: Write) -> None:
    assert read(write("a.json", '[{"text": "one"}, "two", {"text": "  "}]')) == ["one", "two"]


def test_another_field(read: Read, write: Write) -> None:
    path = write("a.jsonl", '{"text": "no", "story": "yes"}\n')
    assert read(path, field="story") == ["yes"]


def test_invalid_utf8_can_be_replaced(read: Read, write: Write) -> None:
    path = write("a.txt", b"caf\xe9 au lait\n")
    assert read(path, invalid_utf8="replace") == ["caf\ufffd au lait\n"]


def large(path: Path, count: int) -> None:
    """Write so many stories of 1000 characters, in the format of the suffix."""
    rng = random.Random(0)
    stories = (rng.randbytes(500).hex() for _ in range(count))
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        match path.name.removesuffix(".gz"):
            case "a.txt":
                file.writelines(f"{story}\n<|endoftext|>\n" for story in stories)
            case "a.jsonl":
                file.writelines(f"{json.dumps({'text': story})}\n" for story in stories)
            case "a.json":
                file.writelines(f"{',' if n else '['}{json.dumps({'text': story})}" for n, story in enumerate(stories))
                file.write("]")
            case "a.csv":
                csv.writer(file).writerows([["text", "id"], *([story, "1"] for story in stories)])


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.csv.gz", "a.json.gz"])
def test_large_files_are_not_held_in_memory(tmp_path: Path, name: str) -> None:
    large(tmp_path / name, 8000)
    tracemalloc.start()
    count = sum(1 for _ in documents(DataRecipe(source=str(tmp_path / name)), seed=0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 8000
    assert (tmp_path / name).stat().st_size > 4_000_000  # and 8 MB when unpacked
    assert peak < 800_000


def test_a_text_larger_than_memory_comes_in_parts(
    read: Read, write: Write, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of lines; shorter documents in the same file are left whole."""
    monkeypatch.setattr(text, "WHOLE", 1000)
    monkeypatch.setattr(text, "PART", 100)
    lines = "".join(f"line {number}\n" for number in range(200))
    parts = read(write("a.txt", lines))
    assert "".join(map(str, parts)) == lines
    assert all(100 <= len(part) < 110 and str(part).endswith("\n") for part in parts[:-1])
    assert len(parts[-1]) < 110
    assert read(write("b.txt", lines[:1000])) == [lines[:1000]]
    assert read(write("c.txt", f"{lines}<|endoftext|>\n{lines[:900]}"))[-1] == lines[:900]
    assert "d.txt, line 201: byte 0xe9" in refusal(write("d.txt", lines.encode() + b"caf\xe9 au lait"))
    assert read(write("e.txt", "no line end " * 200)) == ["no line end " * 200]


@pytest.mark.parametrize(("name", "content"), [("a.txt", ""), ("b.txt", " \n"), ("c.jsonl", "\n"), ("d.json", "")])
def test_empty_file(refusal: Refusal, write: Write, name: str, content: str) -> None:
    path = write(name, content)
    assert refusal(path) == f"{path} is empty: it holds no document"


@pytest.mark.parametrize("content", [b"PK\x03\x04\x00\x00text", bytes(range(128, 256)) * 4])
def test_binary_file(refusal: Refusal, write: Write, content: bytes) -> None:
    assert "a.txt looks like a binary file" in refusal(write("a.txt", content))


def test_nul_byte_far_into_the_file(refusal: Refusal, write: Write) -> None:
    message = refusal(write("a.jsonl", b'{"text": "fine enough"}\n' * 5000 + b"\0\n"))
    assert "a.jsonl looks like a binary file: there is a NUL byte on or after line 5001" in message


def test_utf16(refusal: Refusal, write: Write) -> None:
    assert "a.txt is UTF-16; convert it to UTF-8" in refusal(write("a.txt", "tale".encode("utf-16")))


@pytest.mark.parametrize("name", ["a.txt", "b.jsonl"])
def test_invalid_utf8_is_named_by_line(refusal: Refusal, write: Write, name: str) -> None:
    line = b'"a line of text"\n'
    message = refusal(write(name, line * 2 + b'"caf\xe9"\n' + line))
    assert f"{name}, line 3: byte 0xe9 is not valid UTF-8" in message
    assert "data.invalid_utf8: replace" in message


def test_invalid_utf8_after_a_separator_is_named_by_line(refusal: Refusal, write: Write) -> None:
    message = refusal(write("a.txt", b"one line of text\n<|endoftext|>\nand two\ncaf\xe9\n"))
    assert "a.txt, line 4: byte 0xe9" in message


def test_bad_json_line(refusal: Refusal, write: Write) -> None:
    message = refusal(write("a.jsonl", '{"text": "one"}\n\n{"text": "two"\n'))
    assert "a.jsonl, line 3 is not valid JSON: Expecting ',' delimiter" in message


def test_bad_json_file(refusal: Refusal, write: Write) -> None:
    assert "a.json is not valid JSON: Expecting value at line 2, column 1" in refusal(write("a.json", "[\n"))
    assert "b.json, line 2 is not valid JSON" in refusal(write("b.json", '{"text": "one"}\n{"text": \n'))
    assert "c.json, item 2: a number, and an object or a string" in refusal(write("c.json", '["one", 2]'))


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.jsonl", b'"one"\n{bad\n{"story": 1}\n\n[]\n"caf\xe9"\n"two"\n', "line 2 is not valid JSON"),
        ("a.json", b'["one", {"text": 1}, {}, null, {"messages": []}, "two"]', "item 2: the field 'text' holds a"),
    ],
)
def test_bad_rows_can_be_left_out_and_counted(write: Write, name: str, content: bytes, where: str) -> None:
    path = write(name, content)
    skipped = Skipped()
    assert list(documents(DataRecipe(source=str(path), skip_bad=True), 0, skipped)) == ["one", "two"]
    assert skipped.counts == {str(path): 4}
    assert skipped.first[str(path)].startswith(f"{path}, {where}")
    assert list(documents(DataRecipe(source=str(path), skip_bad=True), 0)) == ["one", "two"]


def test_a_file_of_bad_rows_only_is_refused(refusal: Refusal, write: Write) -> None:
    path = write("a.jsonl", '{"story": "one"}\n{"story": "two"}\n')
    message = refusal(path, skip_bad=True)
    assert message.startswith(f"{path} has no usable row (2 are bad); {path}, line 1: there is no field 'text'")


def test_a_list_that_breaks_off_is_refused_all_the_same(refusal: Refusal, write: Write) -> None:
    assert "a.json is not valid JSON" in refusal(write("a.json", '["one", {"text": '), skip_bad=True)


def test_missing_field_names_those_there_are(refusal: Refusal, write: Write) -> None:
    message = refusal(write("a.jsonl", '{"title": "x", "story": "y"}\n'))
    assert "a.jsonl, line 1: there is no field 'text' (fields: title, story)" in message
    assert "data.field" in message


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"text": null}', "the field 'text' holds null, not text"),
        ('{"text": ["a"]}', "the field 'text' holds a list, not text"),
        ("[1]", "line 1: a list, and an object or a string is needed"),
        ('{"text": "\\ud83d"}', "half of a surrogate pair"),
        ('{"question": "Why?", "answer": " "}', "the answer is empty"),
        ('{"question": "", "answer": "So."}', "the question is empty"),
        ('{"question": "Why?", "answer": 7}', "the field 'answer' holds a number, not text"),
        ('{"messages": []}', "'messages' holds an empty list"),
        ('{"messages": [{"role": "user"}]}', "a message needs a role and a content"),
        (
            '{"messages": [{"role": "bot", "content": "x"}]}',
            "the role 'bot' is not one of system, user, assistant",
        ),
        ('{"messages": [{"role": "user", "content": null}]}', "the field 'content' holds null, not text"),
    ],
)
def test_unusable_rows(refusal: Refusal, write: Write, row: str, expected: str) -> None:
    message = refusal(write("a.jsonl", row))
    assert "a.jsonl, line 1" in message
    assert expected in message
