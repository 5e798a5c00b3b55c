"""Text, JSON Lines and JSON files as streams of documents, with bad input named by file and line.

Nothing but a `.json` file or a single document is ever held whole: a file is read line by line, and a
document is decoded when its last line is there. A row is understood the way the field writes them: a text
field, chat `messages` (OpenAI, mlx-lm), or a `question` with its `answer` (TinyLLM, GSM8K).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError

Document = str | list[dict[str, str]]
"""Plain text, or a conversation: messages with a `role` (system, user, assistant) and their `content`."""

SEPARATOR = "<|endoftext|>"
ROLES = ("system", "user", "assistant")
HEAD = 1 << 16  # bytes looked at to tell text from a binary file


def read_file(path: Path, field: str, replace: bool) -> Iterator[Document]:
    """The documents of one file. `replace` turns invalid UTF-8 into U+FFFD instead of refusing it.

    Raises:
        UserError: unsupported suffix, unreadable, empty or binary file, invalid UTF-8, bad JSON, unusable
        row.
    """
    check_suffix(path)
    found = False
    try:
        _check_text(path)
        for document in READERS[path.suffix.lower()](path, field, replace):
            found = True
            yield document
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    if not found:
        raise UserError(f"{path} is empty: it holds no document")


def check_suffix(path: Path) -> None:
    if path.suffix.lower() not in READERS:
        kind = f"{path.suffix} files are" if path.suffix else "a file without a suffix is"
        raise UserError(f"{path}: {kind} not supported; supported are {SUPPORTED}")


def _check_text(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path} is UTF-16; convert it to UTF-8")
    broken = head.decode("utf-8", "replace").count("\ufffd")
    if b"\0" in head or broken > len(head) * 0.3:
        raise UserError(f"{path} looks like a binary file; supported are {SUPPORTED}, as UTF-8 text")


def _decode(raw: bytes, path: Path, line: int, replace: bool) -> str:
    """`raw`, which begins on this line of the file, as text with `\\n` line ends and no byte order mark."""
    try:
        text = raw.decode("utf-8", "replace" if replace else "strict")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        raise UserError(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not valid UTF-8; "
            "with data.invalid_utf8: replace such bytes become U+FFFD"
        ) from error
    if "\0" in text:
        raise UserError(f"{path} looks like a binary file: there is a NUL byte on or after line {line}")
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _read_txt(path: Path, field: str, replace: bool) -> Iterator[Document]:
    """Documents between separator lines, without the blank lines around them; or else the file as it is."""
    lines: list[bytes] = []
    begin, separated = 1, False

    def document() -> str:
        text = _decode(b"".join(lines), path, begin, replace)
        return text.strip("\n") if separated else text

    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip() != SEPARATOR.encode():
                lines.append(line)
                continue
            separated = True
            if (text := document()).strip():
                yield text
            lines, begin = [], number + 1
    if (text := document()).strip():
        yield text


def _read_jsonl(path: Path, field: str, replace: bool) -> Iterator[Document]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = _decode(raw, path, number, replace)
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not valid JSON: {_reason(error)}") from error
            yield from to_document(row, field, f"{path}, line {number}")


def _read_json(path: Path, field: str, replace: bool) -> Iterator[Document]:
    text = _decode(path.read_bytes(), path, 1, replace)
    if not text.strip():
        return
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "; JSON Lines belong into a .jsonl file" if "Extra data" in str(error) else ""
        raise UserError(f"{path} is not valid JSON: {_reason(error)}{hint}") from error
    if not isinstance(rows, list):
        raise UserError(f"{path} holds {_kind(rows)}, and a list of objects or of strings is needed")
    for number, row in enumerate(rows, 1):
        yield from to_document(row, field, f"{path}, item {number}")


def _reason(error: Exception) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
    return f"{error.msg} at {where}"


READERS = {".txt": _read_txt, ".jsonl": _read_jsonl, ".json": _read_json}
SUPPORTED = ".txt, .jsonl and .json"


def to_document(row: Any, field: str, where: str) -> Iterator[Document]:
    """The document in a row of JSON or of a data set, none when its text is blank. Errors begin with `where`.

    Raises:
        UserError: the row has none of the known forms, or one of them with a value that is not text.
    """
    if isinstance(row, str):
        row = {field: row}
    if not isinstance(row, dict):
        raise UserError(f"{where}: {_kind(row)}, and an object or a string is needed")
    if field in row:
        if _text(row, field, where).strip():
            yield row[field]
    elif "messages" in row:
        yield _conversation(row["messages"], where)
    elif "question" in row and "answer" in row:
        pair = [_text(row, key, where) for key in ("question", "answer")]
        if not all(text.strip() for text in pair):
            raise UserError(f"{where}: the {'question' if pair[1].strip() else 'answer'} is empty")
        yield [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)]
    else:
        fields = ", ".join(map(str, row)) or "none"
        raise UserError(
            f"{where}: there is no field {field!r} (fields: {fields}); set data.field to the one with the "
            "text, or use messages, or question and answer"
        )


def _text(row: dict[str, Any], key: str, where: str) -> str:
    if not isinstance(row[key], str):
        raise UserError(f"{where}: the field {key!r} holds {_kind(row[key])}, not text")
    try:
        row[key].encode()
    except UnicodeEncodeError as error:  # JSON can spell "\\ud83d", which no UTF-8 file and no tokenizer can hold
        raise UserError(f"{where}: the field {key!r} holds half of a surrogate pair, which is not text") from error
    return row[key]


def _conversation(messages: Any, where: str) -> Document:
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: 'messages' holds {_kind(messages)}, and a list of messages is needed")
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise UserError(f"{where}: a message needs a role and a content")
        if message["role"] not in ROLES:
            raise UserError(f"{where}: the role {message['role']!r} is not one of {', '.join(ROLES)}")
        _text(message, "content", where)
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (list, dict)) and not value:
        return f"an empty {'list' if isinstance(value, list) else 'object'}"
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
