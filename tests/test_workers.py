"""Several processes give what one gives, in the same order."""

import os
import time
from collections.abc import Iterator

import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.workers import map_ordered


def slow_first(added: int, number: int) -> tuple[int, int]:
    time.sleep(0.2 if number == 0 else 0)
    return number + added, os.getpid()


def fails_at_three(_: None, number: int) -> int:
    if number == 3:
        raise UserError("three is bad")
    return number


def dies(*_: object) -> None:
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_in_order(workers: int):
    results = list(map_ordered(slow_first, 5, range(20), workers))
    assert [number for number, _ in results] == list(range(5, 25))
    processes = {process for _, process in results}
    assert (processes == {os.getpid()}) == (workers == 1)
    assert len(processes) <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_reads_little_ahead(workers: int):
    read = []

    def items() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    results = map_ordered(fails_at_three, None, items(), workers)
    assert next(results) == 0
    assert len(read) <= 2 * workers + 1


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives(workers: int):
    results = map_ordered(fails_at_three, None, range(9), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="three is bad"):
        next(results)


def test_a_dead_worker_is_one_sentence():
    with pytest.raises(UserError, match="worker process died"):
        list(map_ordered(dies, None, range(3), 2))


def test_none_to_do_and_none_to_do_it():
    assert list(map_ordered(fails_at_three, None, [], 2)) == []
    with pytest.raises(UserError, match="at least 1, not 0"):
        map_ordered(fails_at_three, None, [1], 0)
