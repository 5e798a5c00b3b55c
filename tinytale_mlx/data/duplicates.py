"""Documents that were there before: equal ones by a hash, much alike ones by MinHash.

How alike two documents are is the share of five-word runs they have in common (Jaccard: those in both, divided by
those in either), case and punctuation aside. MinHash (Broder 1997) estimates it without comparing texts: number
all runs at random, and the lowest number of a document equals the other's with just that probability. A document
is kept as 128 such minima, one byte of each (b-bit MinHash, Li & König 2010). To find the few candidates among
millions, the minima are cut into bands; alike documents agree on a whole band somewhere (locality-sensitive
hashing, Indyk & Motwani 1998). It is done here and not by a library because those keep kilobytes per document.

`fingerprint` is a pure function of the text, for worker processes; `Duplicates` sees one document after the other.
Of alike documents the first stays. An estimate is an estimate: with a similarity of 0.8, half of the pairs at 0.8 are
found, nearly all at 0.85, one in fifteen at 0.75, hardly any at 0.7. Scripts without spaces between words have few
runs, so that there only texts that are nearly equal count as alike.

Memory, per million documents that stay: 18 to 36 MB for equal ones; for alike ones 0.4 to 0.7 GB more at a similarity
of 0.8, and the more the lower it is (0.5: 0.9 to 1.6 GB). While the table grows, half as much again.
"""

import functools
import hashlib
import re
import zlib
from array import array
from typing import Literal, NamedTuple

import numpy as np

RUN = 5  # words
MINIMA = 128
RECALL = 0.9  # of document pairs as alike as asked for, the share that must become candidates
CHUNK = 256  # runs hashed at a time, so that their minima stay in the cache
WORD = re.compile(r"\w+")

# From a generator whose stream NumPy promises to keep.
_RANDOM = np.random.PCG64(0x7A1E).random_raw(3 * MINIMA)
_MULTIPLY, _ADD = (_RANDOM[:MINIMA] | 1).astype(np.uint32), _RANDOM[MINIMA : 2 * MINIMA].astype(np.uint32)
_PLACE = _RANDOM[2 * MINIMA :] | 1


class Fingerprint(NamedTuple):
    """What `Duplicates` has to know of a document."""

    digest: int
    """64 bits of BLAKE2b of the text. Ten million different documents have one collision with odds of 1 : 370,000."""
    bands: tuple[int, ...] = ()
    """One 64-bit hash of each band; none without a word in the text, or when only equal ones are looked for."""
    minima: bytes = b""
    """The low byte of each of the 128 minima."""


def fingerprint(text: str, similarity: float | None = None) -> Fingerprint:
    """The fingerprint of a text; without a `similarity` (0 to 1), only that which finds equal ones."""
    digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    words = WORD.findall(text.lower()) if similarity is not None else []
    if similarity is None or not words:
        return Fingerprint(digest)
    minima = _minima(_runs(words))
    rows = band_rows(similarity)
    bands = minima[: MINIMA // rows * rows].reshape(-1, rows) @ _PLACE[:rows]
    bands = _mix(bands + _PLACE[: len(bands)])  # the same minima elsewhere are another band
    return Fingerprint(digest, tuple(bands.tolist()), minima.astype(np.uint8).tobytes())


def _runs(words: list[str]) -> np.ndarray:
    """A hash of each run of five words; of fewer words, of all together. uint32 [max(1, words - 4)]."""
    hashes = np.fromiter(map(zlib.crc32, " ".join(words).encode().split(b" ")), np.uint64, len(words))
    runs = np.convolve(_mix(hashes), _PLACE[: min(RUN, len(words))], "valid")
    return _mix(runs).astype(np.uint32)


def _mix(value: np.ndarray) -> np.ndarray:
    """uint64 to uint64: each bit depends on all of the 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB
    return value ^ (value >> 31)


def _minima(runs: np.ndarray) -> np.ndarray:
    """uint32 [128]: the least of a·run + b mod 2^32, for 128 pairs (a, b)."""
    lowest = np.full(MINIMA, 2**32 - 1, np.uint32)
    for start in range(0, len(runs), CHUNK):
        numbers = np.multiply.outer(_MULTIPLY, runs[start : start + CHUNK])
        numbers += _ADD[:, None]
        np.minimum(lowest, numbers.min(1), out=lowest)
    return lowest


@functools.cache
def band_rows(similarity: float) -> int:
    """How many minima make a band: as many as still find `RECALL` of the pairs that are just this similar.

    Two documents of similarity s agree on a band of r minima with probability s^r, so on one of 128/r bands with
    1 - (1 - s^r)^(128/r). More rows mean fewer bands to store and fewer candidates in vain.
    """
    found = (rows for rows in range(MINIMA, 1, -1) if 1 - (1 - similarity**rows) ** (MINIMA // rows) >= RECALL)
    return next(found, 1)


def estimate(first: bytes, second: bytes) -> float:
    """The similarity of two documents from their `minima`, ± 0.035 (one standard deviation, at 0.8)."""
    equal = int(np.count_nonzero(np.frombuffer(first, np.uint8) == np.frombuffer(second, np.uint8))) / MINIMA
    return (equal - 1 / 256) / (1 - 1 / 256)  # one byte in 256 is equal by chance


class Table:
    """From 64-bit keys to 32-bit numbers, in 12 bytes a slot, where a dict takes a hundred or more a key.

    A hash table with open addressing and linear probing, one third to two thirds full.
    """

    def __init__(self) -> None:
        self.used = 0
        self._allocate(1 << 10)

    def _allocate(self, slots: int) -> None:
        self.keys = array("Q", [0]) * slots  # 0 is an empty slot
        self.values = array("I", [0]) * slots

    def __len__(self) -> int:
        return self.used

    @property
    def nbytes(self) -> int:
        return len(self.keys) * (self.keys.itemsize + self.values.itemsize)

    def get(self, key: int) -> int | None:
        key = key or 1
        slot = self._slot(key)
        return self.values[slot] if self.keys[slot] else None

    def add(self, key: int, value: int) -> bool:
        """Put the value under a new key. False if the key is there; it then keeps the value that it has."""
        key = key or 1
        slot = self._slot(key)
        if self.keys[slot]:
            return False
        self.keys[slot], self.values[slot] = key, value
        self.used += 1
        if self.used * 3 > len(self.keys) * 2:
            self._grow()
        return True

    def _slot(self, key: int) -> int:
        """Where the key is, or the empty slot where it belongs."""
        keys = self.keys
        mask = len(keys) - 1
        slot = key & mask
        while keys[slot] and keys[slot] != key:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        keys, values = self.keys, self.values
        self._allocate(2 * len(keys))
        for key, value in zip(keys, values, strict=True):
            if key:
                slot = self._slot(key)
                self.keys[slot], self.values[slot] = key, value


class Duplicates:
    """Remembers documents by their fingerprints, in constant bytes each, and tells those that were there before."""

    def __init__(self, similarity: float | None = None) -> None:
        """`similarity`: from which on two documents are alike; without it only equal ones are found."""
        self.similarity = similarity
        self.digests, self.bands = Table(), Table()
        self.minima = bytearray()

    @property
    def nbytes(self) -> int:
        return self.digests.nbytes + self.bands.nbytes + len(self.minima)

    def find(self, document: Fingerprint) -> Literal["duplicate", "near_duplicate"] | None:
        """What the document is to those before it; None for a new one, which is remembered.

        The fingerprint must have been made with the same similarity.
        """
        if not self.digests.add(document.digest, 0):
            return "duplicate"
        if self.similarity is None or not document.bands:
            return None
        for candidate in {self.bands.get(band) for band in document.bands}:
            if candidate is not None and estimate(self._minima(candidate), document.minima) >= self.similarity:
                return "near_duplicate"
        number = len(self.minima) // MINIMA
        for band in document.bands:
            self.bands.add(band, number)
        self.minima += document.minima
        return None

    def _minima(self, number: int) -> bytes:
        return bytes(self.minima[number * MINIMA : (number + 1) * MINIMA])
