"""Files give their documents, and every kind of bad file one sentence that says where."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tinytale_mlx.data.sources import Document, documents
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


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_large_files_are_not_held_in_memory(write: Write, name: str) -> None:
    story = "A tale of some length. " * 40
    line = json.dumps({"text": story}) if name == "a.jsonl" else f"{story}\n<|endoftext|>"
    path = write(name, f"{line}\n" * 8000)
    tracemalloc.start()
    count = sum(1 for _ in documents(DataRecipe(source=str(path)), seed=0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 8000
    assert path.stat().st_size > 7_000_000
    assert peak < 1_000_000


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
    assert ".jsonl" in refusal(write("b.json", '{"text": "one"}\n{"text": "two"}\n'))
    assert "c.json holds an object, and a list" in refusal(write("c.json", '{"text": "one"}'))
    assert "not valid JSON" in refusal(write("d.json", "[" * 100_000))


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
