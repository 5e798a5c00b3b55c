"""One function over many items in several processes, the results in order, in bounded memory.

Python runs one thread at a time, so text work is shared out among processes. They are spawned, not forked: a
fork of a process that holds a GPU or several threads may hang.
"""

import itertools
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from .errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def map_ordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int = 1,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """`map(function, items)` by `workers` processes; with one, in this process, which is then the plain loop.

    `start(*arguments)` is called first, in each process. At most two items a worker are under way at a time, so
    items and results should be large (a megabyte of text, not a line). `function`, `start` and what they take and
    give must be picklable, that is, defined at the top of a module; a script that calls this with workers does so
    under `if __name__ == "__main__":`, as `multiprocessing` demands.

    Raises:
        UserError: fewer workers than one, or a worker died (out of memory, or killed).
        Exception: whatever `function` or `items` raises, when its turn comes.
    """
    if workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    return (
        _alone(function, items, start, arguments)
        if workers == 1
        else _shared(function, items, workers, start, arguments)
    )


def _alone(function: Callable, items: Iterable, start: Callable | None, arguments: tuple) -> Iterator:
    if start:
        start(*arguments)
    yield from map(function, items)


def _shared(function: Callable, items: Iterable, workers: int, start: Callable | None, arguments: tuple) -> Iterator:
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future] = deque()
    source = iter(items)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start, initargs=arguments)
    try:
        for item in itertools.islice(source, 2 * workers):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = waiting.popleft().result()
            for item in itertools.islice(source, 1):
                waiting.append(pool.submit(function, item))
            yield result
    except BrokenProcessPool:
        raise UserError("a worker process died (out of memory?); try again with fewer workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
