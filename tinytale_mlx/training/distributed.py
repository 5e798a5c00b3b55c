"""Data parallel training: every process has the whole model and its share of each batch; gradients are summed.

MLX brings the engine, `mx.distributed`: processes started by `mlx.launch -n 2 …` find each other in a ring of sockets
(on one machine or over several), through MPI or NCCL. Sums travel, never means: Σ loss, Σ weights and the gradient of
Σ loss, so that every token weighs the same however unevenly the processes are filled, and N processes take the very
steps of one, but for rounding and for dropout, which each draws for itself.

Every exchange here is evaluated on the spot, by the thread that asks for it, and every process asks for the same ones
in the same order: a ring in which two processes wait for different sums waits for ever. Processes that are connected
add in the same order, so they all get the same bits, and stay equal without ever comparing weights.

The idea of few large messages instead of many small ones is that of PyTorch's DistributedDataParallel (Li et al. 2020,
section 3.2.3).
"""

import contextlib
import functools
import hashlib
import os
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import UserError
from .step import Gradients

MESSAGE = 8 << 20
"""Bytes of gradients that are summed in one go, at least; and what an exchange needs on top of the gradients."""


class Lost(UserError):
    """Another process has ended, or the way to it is cut."""


class World:
    """The processes of a training, and this one's place among them. A world of one exchanges nothing.

    Every process has to make the same calls in the same order. All of them raise Lost where another process has ended,
    if the engine notices. The ring does; nobody notices a machine that is switched off or a cable that is pulled.
    """

    def __init__(self, group: mx.distributed.Group):
        self._group = group
        self.rank: int = group.rank()
        self.size: int = group.size()
        machine = hashlib.blake2b(platform.node().encode(), digest_size=16).digest()
        self.cores: int = max((os.cpu_count() or 1) // self.gather(machine).count(machine), 1)
        """For this process: its share, where several run on this machine."""

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints: rank 0 does."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """For what each process draws for itself, such as dropout; that of rank 0 is the seed itself."""
        if self.leads:
            return seed
        return int.from_bytes(hashlib.blake2b(f"{seed}/rank/{self.rank}".encode(), digest_size=4).digest(), "little")

    # ------------------------------------------------------------------ sums
    def all_sum(self, total: Gradients) -> Gradients:
        """Σ loss, Σ weights and the gradients of all processes, in float32.

        The gradients are changed in place, message by message, so that only one of those is in memory beside them.
        """
        nats, count, gradients = total
        if self.size == 1:
            return total
        nats, count = self._sum_together([nats, count])
        slots = _slots(gradients)
        for first, end in _messages([holder[key].nbytes for holder, key in slots]):
            arrays = []
            for holder, key in slots[first:end]:
                arrays.append(holder[key])
                holder[key] = None  # the message has the only reference, and is freed when it is on its way
            sums = self._sum_together(arrays)
            for (holder, key), array in zip(slots[first:end], sums, strict=True):
                holder[key] = array
            del sums
        return nats, count, gradients

    def _sum_together(self, arrays: list[mx.array]) -> list[mx.array]:
        """One message, for which the arrays are used up. One alone is sent as it is, without a copy."""
        if len(arrays) == 1:
            return [self._exchanged(mx.distributed.all_sum(arrays.pop(), group=self._group))]
        shapes = [array.shape for array in arrays]
        ends = np.cumsum([array.size for array in arrays])[:-1].tolist()
        message = mx.distributed.all_sum(mx.concatenate([array.reshape(-1) for array in arrays]), group=self._group)
        arrays.clear()
        parts = mx.split(self._exchanged(message), ends)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def add(self, *numbers: float) -> list[float]:
        """Each of the numbers summed over the processes, in the order of their ranks and in double precision."""
        rows = [np.frombuffer(row, np.float64) for row in self.gather(np.array(numbers, np.float64).tobytes())]
        return np.sum(rows, axis=0).tolist()

    def any(self, flag: bool) -> bool:
        """Whether it holds in any of the processes: a decision that all of them take together."""
        return flag if self.size == 1 else self.add(flag)[0] > 0

    # ------------------------------------------------------------------ messages
    def gather(self, content: bytes) -> list[bytes]:
        """What each process says, by rank; all say equally many bytes, at least one."""
        if self.size == 1:
            return [content]
        mine = mx.array(np.frombuffer(content, np.uint8))
        all_of_them = self._exchanged(mx.distributed.all_gather(mine, group=self._group))
        return [row.tobytes() for row in np.array(all_of_them).reshape(self.size, -1)]

    def from_first(self, content: bytes) -> bytes:
        """What rank 0 says; what the others say does not matter."""
        length = int.from_bytes(self.gather(len(content).to_bytes(8, "little"))[0], "little")
        if self.size == 1 or not length:
            return content if self.leads else b""
        mine = np.frombuffer(content, np.uint8) if self.leads else np.zeros(length, np.uint8)
        return np.array(self._bytes_of_first(mx.array(mine))).tobytes()

    def copy_first(self, tree: Any) -> None:
        """Make a tree of dictionaries and lists that of rank 0, bit for bit; every process has the same shapes."""
        for holder, key in _slots(tree) if self.size > 1 else ():
            array = holder[key]
            if array.size:
                content = self._bytes_of_first(array.reshape(-1).view(mx.uint8))
                holder[key] = content.view(array.dtype).reshape(array.shape)

    def _bytes_of_first(self, content: mx.array) -> mx.array:
        """A sum, in which the others have zeros."""
        mine = content if self.leads else mx.zeros_like(content)
        return self._exchanged(mx.distributed.all_sum(mine, group=self._group))

    def part(self) -> None:
        """Return when all processes have come here, to end: whoever goes early takes the others with it.

        One that is gone by now is no loss.
        """
        with contextlib.suppress(Lost):
            self.gather(b"+")

    def unfit(self, fine: bool) -> list[int]:
        """The ranks that are not fine."""
        return [rank for rank, said in enumerate(self.gather(b"+" if fine else b"-")) if said == b"-"]

    @staticmethod
    def _exchanged(result: mx.array) -> mx.array:
        """Evaluated here and now."""
        try:
            mx.eval(result)
        except RuntimeError as error:
            if "allocate" in str(error):  # out of memory, which is another matter
                raise
            raise Lost("the connection to the other processes of this training was lost") from error
        return result


@functools.cache
def world() -> World:
    """The processes that `mlx.launch`, `mpirun` or the like have started together; else this one alone."""
    return World(mx.distributed.init())


def _slots(tree: Any) -> list[tuple[Any, Any]]:
    """Where the arrays of a tree of dictionaries and lists are: (what holds it, its key there).

    In the order of their names, which is the same in every process; that of dictionaries depends on how they were made.
    """

    def walk(tree: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
        for key, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if isinstance(child, mx.array):
                yield f"{path}.{key}", tree, key
            else:
                yield from walk(child, f"{path}.{key}")

    return [(holder, key) for _, holder, key in sorted(walk(tree, ""), key=lambda slot: slot[0])]


def _messages(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Which arrays go into each message, from and to: until it is large enough, and a large one goes alone."""
    first = total = 0
    for number, size in enumerate(sizes):
        if number > first and size >= MESSAGE:
            yield first, number
            first, total = number, 0
        total += size
        if total >= MESSAGE:
            yield first, number + 1
            first, total = number + 1, 0
    if first < len(sizes):
        yield first, len(sizes)
