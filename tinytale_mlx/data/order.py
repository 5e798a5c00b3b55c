"""A shuffled order of any length that nobody has to store.

A keyed permutation computes the order one position at a time: a Feistel network with cycle walking (Black &
Rogaway 2002; levanter orders its data this way). It needs no memory and no state, whatever the size of the
corpus, so a run that resumes needs its step and no more.
"""

import math

import numpy as np

ROUNDS = 8  # four would do on large halves, but those of a small corpus are a few values wide


def draw(seed: int, *place: int) -> np.ndarray:
    """The random numbers of a place such as an epoch: uint64 [ROUNDS + 1], keys for `permute` and one to spare."""
    return np.random.SeedSequence(seed, spawn_key=place).generate_state(ROUNDS + 1, np.uint64)


def permute(positions: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """A permutation of range(size), chosen by `keys` (uint64, one per round), at the given positions; int64.

    The network permutes a grid of rows x columns, the squarest that holds `size`. Following it from a value
    until it comes back below `size` (the grid has few cells more, so mostly at once) makes a permutation of
    range(size).
    """
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    values = _feistel(positions.astype(np.uint64), rows, columns, keys)
    while len(outside := np.flatnonzero(values >= size)):
        values[outside] = _feistel(values[outside], rows, columns, keys)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, rows: int, columns: int, keys: np.ndarray) -> np.ndarray:
    """One pass over uint64 values: shift each in its column by a hash of that, then in its row, and again."""
    sizes = np.uint64(rows), np.uint64(columns)
    halves = [values // sizes[1], values % sizes[1]]
    for number, key in enumerate(keys):
        this, other = number % 2, 1 - number % 2
        halves[this] = (halves[this] + _mix(halves[other] + key) % sizes[this]) % sizes[this]
    return halves[0] * sizes[1] + halves[1]


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def counting(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... up to each count in turn: [2, 3] gives [0, 1, 0, 1, 2]; int64."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
