"""Standard input as a file. It comes only once, and is read more often: by the tokenizer's training, for the shards."""

import atexit
import functools
import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError

NAME = "standard input"
CHUNK = 1 << 20


class Spool(NamedTuple):
    """path: ends in .jsonl if the first line begins with `{`, else in .txt. digest: of the content."""

    path: Path
    digest: str


@functools.cache
def spool() -> Spool:
    """Standard input, read to its end the first time, as a temporary file that goes when the process does.

    Raises:
        UserError: it is a terminal, where nobody would know that a text is waited for; the file can't be written.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("nothing comes in on standard input: pipe a text into it, or name a file instead of -")
    digest = hashlib.blake2b(digest_size=16)
    try:
        descriptor, name = tempfile.mkstemp(prefix="tinytale-")
        atexit.register(Path(name).unlink, missing_ok=True)
        begin = b""
        with os.fdopen(descriptor, "wb") as file:
            while chunk := sys.stdin.buffer.read(CHUNK):
                begin = begin or chunk.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
                digest.update(chunk)
                file.write(chunk)
        path = Path(name).rename(f"{name}{'.jsonl' if begin == b'{' else '.txt'}")
        atexit.register(path.unlink, missing_ok=True)
    except OSError as error:
        raise UserError(f"standard input could not be kept in {tempfile.gettempdir()}: {error.strerror}") from error
    return Spool(path, digest.hexdigest())
