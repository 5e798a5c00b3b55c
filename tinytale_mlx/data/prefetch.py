"""The next batches, made while the model works on this one.

Worth it where a batch takes long to make, as where its text is encoded on the way. Windows of a mapped file take a
tenth of a millisecond, less than the hand-over from thread to thread can save.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterable

from .rows import Batch


def prefetch(at: Callable[[int], Batch], steps: Iterable[int], depth: int = 2) -> Generator[Batch, None, None]:
    """`map(at, steps)`, made by a thread of its own that is at most `depth` batches ahead.

    What `at` raises is raised here when its turn comes, and ends it. The thread ends with the iterator: when that is
    used up, closed (`contextlib.closing`) or forgotten.
    """
    if depth < 1:
        raise ValueError(f"prefetch must be at least 1 batch ahead, not {depth}")
    made: queue.Queue[tuple[Batch | None, BaseException | None]] = queue.Queue()
    room = threading.Semaphore(depth)
    closed = threading.Event()

    def work() -> None:
        try:
            for step in steps:
                room.acquire()
                if closed.is_set():
                    return
                made.put((at(step), None))
            made.put((None, None))
        except BaseException as error:  # it is the caller's
            made.put((None, error))

    return _handed_over(threading.Thread(target=work, name="prefetch", daemon=True), made, room, closed)


def _handed_over(
    thread: threading.Thread,
    made: "queue.Queue[tuple[Batch | None, BaseException | None]]",
    room: threading.Semaphore,
    closed: threading.Event,
) -> Generator[Batch, None, None]:
    thread.start()
    try:
        while True:
            batch, error = made.get()
            if error is not None:
                raise error
            if batch is None:
                return
            room.release()
            yield batch
    finally:
        closed.set()
        room.release()
        thread.join()
