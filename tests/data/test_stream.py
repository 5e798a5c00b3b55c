"""Streamed batches: the same at a step however one got there, and every token of every epoch once."""

from collections.abc import Iterator

import numpy as np
import pytest

from tinytale_mlx.data.stream import StreamBatches
from tinytale_mlx.errors import UserError

LENGTHS = (3, 40, 1, 17, 0, 60)
TOTAL = sum(LENGTHS)


def epoch() -> Iterator[np.ndarray]:
    """Documents of some lengths over the tokens 0, 1, 2, …"""
    first = 0
    for length in LENGTHS:
        yield np.arange(first, first + length, dtype=np.uint16)
        first += length


def stream(seed: int = 0, buffer: int = 5) -> StreamBatches:
    return StreamBatches(epoch, context=4, batch_size=3, seed=seed, buffer=buffer)


def test_shapes_and_types() -> None:
    tokens, weights, *_ = stream().at(0)
    assert (tokens.shape, tokens.dtype) == ((3, 5), np.int32)
    assert (weights.shape, weights.dtype) == ((3, 4), np.float32)
    assert weights.all()


def test_rows_are_windows_of_the_joined_documents() -> None:
    batches = stream()
    rows = np.concatenate([batches.at(step)[0] for step in range(30)])
    assert (np.diff(rows) % TOTAL == 1).all()  # each token is followed by its successor, also from epoch to epoch


def test_one_epoch_shows_every_token_once() -> None:
    batches = StreamBatches(epoch, context=11, batch_size=1, seed=0, buffer=1)
    targets = np.concatenate([batches.at(step)[0][0, 1:] for step in range(TOTAL // 11)])
    assert TOTAL % 11 == 0
    assert sorted(targets) == sorted([*range(1, TOTAL), 0])


def test_a_step_is_the_same_however_one_gets_there() -> None:
    straight = stream()
    expected = [straight.at(step)[0] for step in range(20)]
    assert not all(np.array_equal(expected[0], other) for other in expected[1:])
    for step in (19, 3, 3, 8, 0):
        assert np.array_equal(straight.at(step)[0], expected[step])
        assert np.array_equal(stream().at(step)[0], expected[step])


def test_the_seed_shuffles() -> None:
    one, two = (np.concatenate([stream(seed).at(step)[0] for step in range(5)]) for seed in (0, 1))
    assert not np.array_equal(one, two)
    unshuffled = np.concatenate([stream(buffer=1).at(step)[0] for step in range(5)])
    assert (np.diff(unshuffled[:, 0]) % TOTAL == 4).all()
    assert not (np.diff(one[:, 0]) % TOTAL == 4).all()


def test_refusals() -> None:
    with pytest.raises(UserError, match="does not fill one window of 200 tokens"):
        StreamBatches(lambda: [np.zeros(0, np.int32)], context=200, batch_size=1, seed=0).at(0)
    with pytest.raises(ValueError, match="no batch -1"):
        stream().at(-1)
