"""Files as streams of documents: which formats there are, and what is a document in them.

No file is ever held whole, whatever its format: it is read line by line, item by item, or a few rows at a time,
and unpacked as it is read. Bad input is named by file and line, or counted where that is wanted.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UserError
from .compression import CODECS, open_bytes, suffix, unpacked_size
from .conversations import conversation_from, fields, kind, text_in
from .json_rows import json_rows, jsonl_rows
from .tables import csv_rows, parquet_rows, parquet_size, tsv_rows
from .text import check_text, text_rows

Document = str | list[dict[str, str]]
"""Plain text, or a conversation: messages with a `role` and their `content`."""

Row = tuple[Any, str]
"""A row of a file or data set as JSON would have it, and where it stands. If the row is a UserError, there is none,
and that says why."""

OnSkip = Callable[[str, str], None]
"""Told of each row that is left out: the name of its file or data set, and what is wrong with it."""

READERS: dict[str, Callable[[io.BufferedReader, str, bool], Iterator[Row]]] = {
    ".txt": text_rows,
    ".md": text_rows,
    ".jsonl": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": tsv_rows,
}
PARQUET = ".parquet"
SUPPORTED = f"{', '.join(READERS)} and {PARQUET}, each also with {' or '.join(CODECS)} after it"
Made = TypeVar("Made")


@dataclass
class Skipped:
    """Counts rows that were left out; an `OnSkip`."""

    counts: Counter[str] = field(default_factory=Counter)
    """By file or data set."""
    first: dict[str, str] = field(default_factory=dict)
    """What was wrong with the first row that was left out of each."""

    def __call__(self, source: str, reason: str) -> None:
        self.counts[source] += 1
        self.first.setdefault(source, reason)


def is_supported(path: Path) -> bool:
    return suffix(path) in (*READERS, PARQUET)


def check_suffix(path: Path) -> None:
    if not is_supported(path):
        kind = f"{path.suffix} files are" if path.suffix else "a file without a suffix is"
        raise UserError(f"{path}: {kind} not supported; supported are {SUPPORTED}")


def read_rows(path: Path, replace: bool, label: str | None = None, column: str | None = None) -> Iterator[Row]:
    """The rows of one file; of a text file, its documents. In errors it is called `label`, or else by its path.

    replace: invalid UTF-8 becomes U+FFFD instead of being refused. column: of Parquet, read only this one if it is
    there.

    Raises:
        UserError: unsupported suffix; unreadable, damaged or binary file; invalid UTF-8; a file that is not JSON.
    """
    check_suffix(path)
    label = label or str(path)
    try:
        with open_bytes(path) as file:
            if suffix(path) == PARQUET:
                yield from parquet_rows(file, label, replace, column)
            else:
                check_text(file, label, SUPPORTED)
                yield from READERS[suffix(path)](file, label, replace)
    except OSError as error:
        raise _unreadable(error, label) from error


def size(path: Path) -> int:
    """Bytes of text in a file, about: those of a compressed file as if it were not. Raises UserError."""
    try:
        if path.suffix.lower() != PARQUET:
            return unpacked_size(path)
        with open_bytes(path) as file:
            return parquet_size(file)
    except OSError as error:
        raise _unreadable(error, str(path)) from error


def _unreadable(error: OSError, label: str) -> UserError:
    if error.errno is not None:
        return UserError(f"{label}: {error.strerror or error}")
    if "Truncated" in str(error):
        return UserError(f"{label} is cut short: the compressed data end before they should")
    return UserError(f"{label} is damaged, cut short, or not what its suffix says ({' '.join(str(error).split())})")


def usable(
    rows: Iterable[Row], make: Callable[[Any, str], Made | None], label: str, on_skip: OnSkip | None = None
) -> Iterator[Made]:
    """What `make` makes of each row and its place, unless that is None. Bad rows are refused, or given to `on_skip`.

    Raises:
        UserError: a bad row, without `on_skip`; nothing is made of any row.
    """
    skipped = Skipped()
    found = False
    for row, where in rows:
        try:
            if isinstance(row, UserError):
                raise row
            made = make(row, where)
        except UserError as error:
            if on_skip is None:
                raise
            on_skip(label, str(error))
            skipped(label, str(error))
            continue
        if made is not None:
            found = True
            yield made
    if skipped.counts and not found:
        raise UserError(f"{label} has no usable row ({skipped.counts[label]:,} are bad); {skipped.first[label]}")
    if not found:
        raise UserError(f"{label} is empty: it holds no document")


def to_document(row: Any, field: str, where: str) -> Document | None:
    """The document in a row, None if its text is blank: the text in `field`, or else a conversation.

    Raises:
        UserError: the row is in none of the known forms, or in one of them with a value that is not text. It begins
            with `where`.
    """
    if isinstance(row, str):
        row = {field: row}
    if not isinstance(row, dict):
        raise UserError(f"{where}: {kind(row)}, and an object or a string is needed")
    if field in row:
        text = text_in(row, field, where)
        return text if text and not text.isspace() else None
    if conversation := conversation_from(row, where):
        return conversation
    raise UserError(
        f"{where}: there is no field {field!r} {fields(row)}; set data.field to the one with the text, "
        "or use messages, or question and answer"
    )
