"""Batches made ahead are the same, in order; errors come in their turn; the thread ends with the iterator."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest

from tinytale_mlx.data.batches import Batches, Shuffled
from tinytale_mlx.data.prefetch import prefetch
from tinytale_mlx.data.rows import Batch, WindowRows

EMPTY = Batch(np.zeros((1, 2), np.int32), np.ones((1, 1), np.float32))


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert running() == []


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_same_batches_in_order(depth: int) -> None:
    batches = Batches(Shuffled(WindowRows(np.arange(500), 8, 0), 0), 4)
    ahead = list(prefetch(batches.at, range(7, 30), depth))
    assert len(ahead) == 23
    for step, batch in enumerate(ahead, 7):
        np.testing.assert_array_equal(batch.tokens, batches.at(step).tokens)


@pytest.mark.parametrize("depth", [1, 3])
def test_it_is_ahead_by_so_many_and_no_more(depth: int) -> None:
    made: list[int] = []
    enough = threading.Event()

    def at(step: int) -> Batch:
        made.append(step)
        if len(made) == 1 + depth:
            enough.set()
        return EMPTY

    with closing(prefetch(at, range(100), depth)) as batches:
        next(batches)
        assert enough.wait(10)
        time.sleep(0.05)
        assert made == list(range(1 + depth))
    assert len(made) <= 2 + depth


def test_it_works_while_we_do() -> None:
    """The batch after the next is made before the next is asked for; without a thread this would wait for ever."""
    second = threading.Event()

    def at(step: int) -> Batch:
        if step == 1:
            second.set()
        return EMPTY

    with closing(prefetch(at, range(2))) as batches:
        next(batches)
        assert second.wait(10)


def test_an_error_comes_when_it_is_its_turn() -> None:
    def at(step: int) -> Batch:
        if step == 2:
            raise OSError("the disk is gone")
        return EMPTY

    batches = prefetch(at, range(10), depth=5)
    assert [next(batches), next(batches)] == [EMPTY, EMPTY]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert list(batches) == []


def test_closing_ends_the_thread() -> None:
    batches = prefetch(lambda step: EMPTY, range(10**9))
    next(batches)
    assert len(running()) == 1
    batches.close()
    assert running() == []


def test_forgetting_ends_the_thread() -> None:
    batches = prefetch(lambda step: EMPTY, range(10**9))
    next(batches)
    del batches
    assert running() == []


def test_never_started_and_none_to_make() -> None:
    prefetch(lambda step: EMPTY, range(10))
    assert running() == []
    assert list(prefetch(lambda step: EMPTY, range(0))) == []


def test_it_must_be_ahead() -> None:
    with pytest.raises(ValueError, match="at least 1 batch ahead, not 0"):
        prefetch(lambda step: EMPTY, range(3), depth=0)
