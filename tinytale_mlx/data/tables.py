"""Rows of tables: CSV and TSV line by line, Parquet a few rows at a time."""

import csv
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .text import WHOLE, decode

if TYPE_CHECKING:
    import pyarrow

ROWS = 64  # of a Parquet file decoded at a time
READ = 1 << 20  # bytes of a column of a Parquet file read at a time


def csv_rows(file: io.BufferedReader, label: str, replace: bool, delimiter: str = ",") -> Iterator[tuple[Any, str]]:
    """({column: text}, where) of each row below the header; of a bad row, the UserError about it is the row.

    Fields may be quoted, and then hold line ends, as RFC 4180 says.
    """
    csv.field_size_limit(WHOLE)  # after a quote that is never closed, a field goes on to the end of the file
    lines = (decode(raw, label, number, replace) for number, raw in enumerate(file, 1))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        where = f"{label}, line {reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield UserError(f"{where}: the quotes or line ends are not those of CSV ({error})"), where
            continue
        if not row:
            continue
        if not header:
            header = [name.strip() for name in row]
        elif len(row) == len(header):
            yield dict(zip(header, row, strict=True)), where
        else:
            yield UserError(f"{where}: the header names {len(header)} columns, and here are {len(row)}"), where


def tsv_rows(file: io.BufferedReader, label: str, replace: bool) -> Iterator[tuple[Any, str]]:
    """As `csv_rows`, with tabs between the columns."""
    return csv_rows(file, label, replace, "\t")


def parquet_rows(
    file: io.BufferedReader, label: str, replace: bool, column: str | None = None
) -> Iterator[tuple[Any, str]]:
    """({column: value}, where) of each row; of one column alone, if it is named and there.

    Arrow reads ahead the column chunks of all row groups unless it is told not to (`pre_buffer`), and without a
    buffer of its own whole ones: then a file would be in memory after all. Its threads keep memory that is free.

    Raises OSError where the file is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with _seekable(file) as whole:
        try:
            with parquet.ParquetFile(whole, buffer_size=READ, pre_buffer=False) as table:
                columns = [column] if column in table.schema_arrow.names else None
                number = 0
                for batch in table.iter_batches(ROWS, columns=columns, use_threads=False):
                    for row in _rows(batch, f"{label}, row", number, replace):
                        number += 1
                        yield row, f"{label}, row {number}"
        except pa.ArrowException as error:
            raise OSError(str(error)) from error


def parquet_size(file: io.BufferedReader) -> int:
    """Bytes of the columns before they were compressed. Raises OSError where the file is damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        facts = parquet.read_metadata(file)
    except pa.ArrowException as error:
        raise OSError(str(error)) from error
    return sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))


@contextmanager
def _seekable(file: io.BufferedReader) -> Iterator[Any]:
    """The file itself, or a temporary one with what it holds: Parquet is read from its end."""
    if file.seekable():
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield copy


def _rows(batch: "pyarrow.RecordBatch", label: str, before: int, replace: bool) -> list[Any]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # Parquet does not check that a string column holds UTF-8
        numbers = range(batch.num_rows)
        return [_row(batch.slice(number, 1), f"{label} {before + number + 1}", replace) for number in numbers]


def _row(batch: "pyarrow.RecordBatch", where: str, replace: bool) -> Any:
    try:
        return {name: _value(column[0], replace) for name, column in zip(batch.schema.names, batch, strict=True)}
    except UnicodeDecodeError:
        return UserError(f"{where}: invalid UTF-8; with data.invalid_utf8: replace such bytes become U+FFFD")


def _value(scalar: Any, replace: bool) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if not replace or not hasattr(scalar, "as_buffer"):  # a list or a struct has none of its own
            raise
        return scalar.as_buffer().to_pybytes().decode("utf-8", "replace")
