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
from functools import partial
from typing import Any, TypeVar

from .errors import UserError

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def map_ordered(
    function: Callable[[State, Item], Result], state: State, items: Iterable[Item], workers: int = 1
) -> Iterator[Result]:
    """`function(state, item)` for every item, by `workers` processes; with one it is the plain loop in this process.

    The state (a tokenizer, say) is sent to each process once. At most two items a worker are under way at a time, so
    items and results should be large (a megabyte of text, not a line). All must be picklable, and `function` defined
    at the top of a module; a script that calls this with several workers does so under
    `if __name__ == "__main__":`, as `multiprocessing` demands.

    Raises:
        UserError: fewer workers than one, or a worker died (out of memory, or killed).
        Exception: whatever `function` or `items` raises, when its turn comes.
    """
    if workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    if workers == 1:
        return map(partial(function, state), items)
    return _shared(function, state, items, workers)


def _shared(function: Callable, state: Any, items: Iterable, workers: int) -> Iterator:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(function, state))
    waiting: deque[Future] = deque()
    source = iter(items)
    try:
        for item in itertools.islice(source, 2 * workers):
            waiting.append(pool.submit(_call, item))
        while waiting:
            result = waiting.popleft().result()
            for item in itertools.islice(source, 1):
                waiting.append(pool.submit(_call, item))
            yield result
    except BrokenProcessPool:
        raise UserError("a worker process died (out of memory?); try again with fewer workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_work: Callable[[Any], Any]
"""In a worker process: the function with its state."""


def _begin(function: Callable, state: Any) -> None:
    global _work
    _work = partial(function, state)


def _call(item: Any) -> Any:
    return _work(item)
