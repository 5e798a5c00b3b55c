"""Files that are complete or not there: written under another name, flushed to the disk, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flush(path: Path) -> None:
    """Have the operating system put a file, or a folder's list of names, on the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """`flush` for the files in a folder and for the folder itself."""
    for file in [*folder.iterdir(), folder]:
        flush(file)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file that then takes the place of `path`, whole; if that fails, the old one stays.

    Raises OSError as files do. The name ends in .tmp: what a killed process leaves behind is known by that.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
