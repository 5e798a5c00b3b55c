"""Rows of JSON: one a line, or the items of a list, which is parsed item by item as the file is read."""

import codecs
import io
import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from ..errors import UserError
from .text import check_nul, decode, invalid

CHUNK = 1 << 16  # bytes read at a time
BLANK = re.compile(r"[ \t\n\r]*")
NEAR_END = 16  # characters: an error so close to the end of what was read may be one because the rest is missing


def jsonl_rows(file: io.BufferedReader, label: str, replace: bool) -> Iterator[tuple[Any, str]]:
    """(row, where) of each line that is not blank; of a line that is not JSON, the row is the UserError about it."""
    for number, raw in enumerate(file, 1):
        where = f"{label}, line {number}"
        try:
            line = decode(raw, label, number, replace)
            if not line.isspace():
                yield json.loads(line), where
        except UserError as error:
            yield error, where
        except (ValueError, RecursionError) as error:
            yield UserError(f"{where} is not valid JSON: {_reason(error)}"), where


def json_rows(file: io.BufferedReader, label: str, replace: bool) -> Iterator[tuple[Any, str]]:
    """(row, where) of each item of the list that the file holds. JSON Lines, often found in such files, will do, too.

    Raises:
        UserError: the file is neither. Where a list breaks off, nothing tells where it would go on.
    """
    if file.peek().lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        yield from _lines(file, label, replace)
        return
    window = _Window(file, label, replace)
    try:
        for number, item in enumerate(window.items(), 1):
            yield item, f"{label}, item {number}"
    except json.JSONDecodeError as error:
        raise UserError(f"{label} is not valid JSON: {_message(error)} at {window.place(error.pos)}") from error
    except RecursionError as error:
        raise UserError(f"{label} is not valid JSON: {error}") from error


def _lines(file: io.BufferedReader, label: str, replace: bool) -> Iterator[tuple[Any, str]]:
    rows = jsonl_rows(file, label, replace)
    first = next(rows)
    if isinstance(first[0], UserError):
        raise UserError(
            f"{label} begins with an object that does not end on its line, or is not valid JSON; "
            "a list of objects or of strings is needed, or one object a line"
        )
    yield from chain([first], rows)


def _reason(error: Exception) -> str:
    return f"{_message(error)} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _message(error: json.JSONDecodeError) -> str:
    return error.msg.removesuffix(" at")


class _Window:
    """The part of a file that the parser looks at: it grows when an item goes on, and loses what was parsed."""

    def __init__(self, file: io.BufferedReader, label: str, replace: bool) -> None:
        self._file, self._label = file, label
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace" if replace else "strict")
        self._parse = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0
        self._line, self._column = 1, 0  # of the file, where the text begins
        self._line_read, self._begun = 1, False

    def items(self) -> Iterator[Any]:
        """Of the list. Raises JSONDecodeError, of which `place` tells where in the file it is."""
        opening = self._next()
        if not opening:
            return
        if opening != "[":
            raise UserError(f"{self._label} does not begin with [; a list of objects or of strings is needed")
        self._at += 1
        if self._next() != "]":
            yield self._item()
            while self._next() == ",":
                self._at += 1
                yield self._item()
        if self._next() != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", self._text, self._at)
        self._at += 1
        if self._next():
            raise json.JSONDecodeError("Extra data", self._text, self._at)

    def place(self, position: int) -> str:
        """Line and column in the file of a position in the text."""
        line = self._line + self._text.count("\n", 0, position)
        begin = self._text.rfind("\n", 0, position)
        column = position - begin if begin >= 0 else self._column + position + 1
        return f"line {line}, column {column}" if line > 1 else f"column {column}"

    def _next(self) -> str:
        """The next character that is not blank, where the parser then stands; none at the end of the file."""
        while True:
            found = BLANK.match(self._text, self._at)
            assert found is not None  # nothing at all is blank, too
            self._at = found.end()
            if self._at < len(self._text) or not self._grow():
                return self._text[self._at : self._at + 1]

    def _item(self) -> Any:
        self._next()
        while True:
            try:
                item, end = self._parse(self._text, self._at)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated") or error.pos > len(self._text) - NEAR_END
                if unfinished and self._grow():
                    continue
                raise
            if isinstance(item, (int, float)) and end > len(self._text) - NEAR_END and self._grow():
                continue  # it may have more digits
            self._at = end
            return item

    def _grow(self) -> bool:
        """Read on, at least as much as is held, so that a long item is parsed a few times only; False at the end."""
        raw = self._file.read(max(CHUNK, len(self._text) - self._at))
        try:
            new = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            raise invalid(error, self._label, self._line_read) from error
        check_nul(new, self._label, self._line_read)
        self._line_read += raw.count(b"\n")
        if new:
            self._forget()
            self._text += new if self._begun else new.removeprefix("\ufeff")
            self._begun = True
        return bool(raw or new)

    def _forget(self) -> None:
        """Cut off what was parsed."""
        done, self._text, self._at = self._text[: self._at], self._text[self._at :], 0
        begin = done.rfind("\n")
        self._column = len(done) - begin - 1 if begin >= 0 else self._column + len(done)
        self._line += done.count("\n")
