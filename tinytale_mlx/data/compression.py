"""Compressed files, read as if they were not: gzip and Zstandard, through the streams of Arrow.

Arrow comes with `datasets`; it is loaded only where a file needs it.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CODECS = {".gz": "gzip", ".zst": "zstd"}
"""Suffixes that stand after the one of the format, as in `tales.jsonl.zst`, and what Arrow calls them."""

BUFFER = 1 << 16
SAMPLE = 1 << 23  # bytes of text from which a file's whole size is estimated


def suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case: `.jsonl` for `a.jsonl` and for `a.JSONL.gz`; else empty."""
    return Path(path.stem).suffix.lower() if is_compressed(path) else path.suffix.lower()


def is_compressed(path: Path) -> bool:
    return path.suffix.lower() in CODECS


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """A file's bytes, unpacked as they are read. What is compressed can't be sought in.

    Raises:
        OSError: as files do; with no `errno` where the compressed bytes are damaged or cut short.
    """
    with _opened(path) as file:
        if not is_compressed(path):
            yield file
            return
        with _unpacked(file, path) as unpacked:
            yield unpacked


def unpacked_size(path: Path) -> int:
    """Bytes of a file when it is unpacked; beyond `SAMPLE` estimated from how well its beginning is compressed.

    Raises OSError as `open_bytes` does.
    """
    size = path.stat().st_size
    if not is_compressed(path):
        return size
    with _opened(path) as file, _unpacked(file, path) as unpacked:
        sample = len(unpacked.read(SAMPLE))
        return sample if sample < SAMPLE else max(sample, size * sample // file.tell())


def _opened(path: Path) -> io.BufferedReader:
    return io.BufferedReader(io.FileIO(path), BUFFER)


def _unpacked(file: io.BufferedReader, path: Path) -> io.BufferedReader:
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(file, CODECS[path.suffix.lower()]), BUFFER)
