"""Token files: written once, memory-mapped ever after, as nanoGPT's `train.bin`.

A shard is three files. `train.bin` holds the tokens (uint16 or uint32, little-endian), `train.offsets.bin`
where each document begins (int64, one more than there are documents), `train.json` what they are and what
they were made from. The JSON files are put in place last: a preparation that was killed has none, and is done
again. They hold a checksum of the other two, so that a file that was changed on the disk is noticed.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..disk import flush
from ..errors import UserError
from ..tokenizers.base import Tokenizer
from .split import SIDES


@dataclass(frozen=True)
class Shard:
    """Tokens of one side of a corpus, on disk.

    path: of the index. tokens: uint16 or uint32 [N], memory-mapped, read-only. offsets: int64 [documents +
    1], likewise; document i is tokens[offsets[i]:offsets[i + 1]]. bytes: UTF-8 bytes of the text of all
    documents (of a conversation, of the contents of its messages). fingerprint: the tokenizer's. key: see
    `prepare.data_key`.
    """

    path: Path
    tokens: np.ndarray
    offsets: np.ndarray
    documents: int
    bytes: int
    vocab_size: int
    fingerprint: str
    key: str

    @classmethod
    def open(cls, path: Path, *, check: bool = True) -> "Shard":
        """The shard whose index is `path`, such as `data/train.json`.

        `check` reads the whole files once, about a second a gigabyte, and compares their checksums.

        Raises:
            UserError: no index, one that is not a shard's, or files of another size or content than it says.
        """
        path = Path(path)
        try:
            index = json.loads(path.read_text("utf-8"))
            tokens = _map(path.with_suffix(".bin"), index["dtype"], index["tokens"])
            offsets = _map(path.with_suffix(".offsets.bin"), "<i8", index["documents"] + 1)
            for name, expected in index["checksums"].items() if check else ():
                if _checksum(path.with_suffix(name)) != expected:
                    raise UserError(f"{path.with_suffix(name)} was changed since it was written; {_AGAIN}")
            given = {name: index[name] for name in ("documents", "bytes", "vocab_size", "fingerprint", "key")}
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is missing; {_AGAIN}") from error
        except UserError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not the index of a shard; {_AGAIN}") from error
        return cls(path, tokens, offsets, **given)

    def document(self, number: int) -> np.ndarray:
        """The tokens of one document, [length]."""
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]


_AGAIN = "delete its folder and prepare the data again"


def _checksum(path: Path) -> str:
    """Read, not mapped: mapped pages would count as memory of this process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _map(path: Path, dtype: str, count: int) -> np.ndarray:
    expected, found = count * np.dtype(dtype).itemsize, path.stat().st_size
    if expected != found:
        raise UserError(f"{path} has {found:,} bytes instead of {expected:,}, it was changed or cut short; {_AGAIN}")
    return np.memmap(path, dtype, "r") if count else np.zeros(0, dtype)  # an empty file can't be mapped


class Shards(NamedTuple):
    train: Shard
    validation: Shard


def open_shards(directory: Path) -> Shards:
    """Both shards of a directory. Raises UserError as `Shard.open` does."""
    return Shards(*(Shard.open(Path(directory) / f"{side}.json") for side in SIDES))


def byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """UTF-8 bytes of text that each token stands for, int32 [vocab_size]; 0 for special tokens.

    Summed over the predicted tokens it is what bits per byte divides by.
    """
    return np.array([len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)], np.int32)


def token_type(tokenizer: Tokenizer) -> str:
    """The NumPy type of its tokens: two bytes each as long as they suffice."""
    return "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"


class ShardWriter:
    """Writes one shard under temporary names: `add` its documents, then `publish` it with the other side's.

    As a context manager it removes the temporary files that were not published. Raises OSError as files do.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer, key: str) -> None:
        self.path = path
        self.tokens = self.documents = self.bytes = 0
        self._hashes = [hashlib.blake2b(digest_size=16) for _ in range(2)]
        self._vocab_size, self._fingerprint, self._key = tokenizer.vocab_size, tokenizer.fingerprint, key
        self._dtype = token_type(tokenizer)
        self._names = [path.with_suffix(suffix) for suffix in (".bin", ".offsets.bin")]

    def __enter__(self) -> "ShardWriter":
        self._files: list[BinaryIO] = [_temporary(name).open("wb") for name in self._names]
        self._write(1, np.zeros(1, "<i8"))
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            with suppress(OSError):  # a full disk; what matters was flushed when it was published
                file.close()
        for name in (*self._names, self.path):
            _temporary(name).unlink(missing_ok=True)

    def add(self, tokens: np.ndarray, lengths: np.ndarray, size: int) -> None:
        """Append documents: the tokens of all of them, how many each has, the bytes of text that they stand for."""
        self._write(0, tokens.astype(self._dtype, copy=False))
        self._write(1, (self.tokens + np.cumsum(lengths)).astype("<i8"))
        self.tokens += len(tokens)
        self.documents += len(lengths)
        self.bytes += size

    def _write(self, number: int, array: np.ndarray) -> None:
        self._files[number].write(array.data)
        self._hashes[number].update(array.data)

    def publish_tokens(self) -> None:
        for file, name in zip(self._files, self._names, strict=True):
            _put(file, name)

    def publish_index(self) -> None:
        index = {
            "dtype": self._dtype,
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self.bytes,
            "vocab_size": self._vocab_size,
            "fingerprint": self._fingerprint,
            "key": self._key,
            "checksums": {
                name: value.hexdigest() for name, value in zip((".bin", ".offsets.bin"), self._hashes, strict=True)
            },
        }
        with _temporary(self.path).open("wb") as file:
            file.write((json.dumps(index, indent=2) + "\n").encode())
            _put(file, self.path)


def publish(writers: list[ShardWriter]) -> None:
    """Put finished shards in place of older ones. Until the last index is there, no pair is valid."""
    for writer in writers:
        writer.path.unlink(missing_ok=True)
    for writer in writers:
        writer.publish_tokens()
    for writer in writers:
        writer.publish_index()


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _put(file: BinaryIO, path: Path) -> None:
    file.close()
    flush(_temporary(path))
    os.replace(_temporary(path), path)
