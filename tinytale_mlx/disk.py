"""Files that are complete or not there: written under another name, flushed to the disk, then renamed."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError

FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS's alone."""


def flush(path: Path) -> None:
    """Have the operating system put a file, or a folder's list of names, on the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """After macOS's fsync the drive may still wait before it writes; a command of its own it obeys, if it knows it."""
    if FULL_SYNC is not None:
        with suppress(OSError):
            fcntl.fcntl(descriptor, FULL_SYNC)
            return
    os.fsync(descriptor)


def flush_folder(folder: Path) -> None:
    """`flush` for the files in a folder and for the folder itself."""
    for file in [*folder.iterdir(), folder]:
        flush(file)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Put a finished folder in another's place, whole; should that fail, the old one stays.

    Raises OSError as files do, but not where another process puts one there at the same moment: then that is it.
    """
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old.tmp")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.rename(folder, old)
    try:
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():
            if old.exists():
                os.rename(old, folder)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
    flush(folder.parent)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """`replacing` for a folder: an empty one, whose files then take the place of all that was in `folder`.

    Raises OSError as files do. Only one process at a time may do it: the name is the same each time, so that what a
    killed process leaves behind is gone with the next attempt.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        flush_folder(temporary)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing(what: str, place: Path) -> Iterator[None]:
    """Say in one sentence that something could not be written. Raises UserError for an OSError inside, and for the
    RuntimeError as which MLX reports a full disk."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{what} could not be written to {place}: {reason}") from error


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
