"""Work in a process of its own: no program weighs on another, and one that crashes is a row and not the end.

`call` runs a function once, `Worker` lets a generator do a turn whenever it is asked, so that several programs can take
turns on a busy machine and wait without work meanwhile. Functions are named by module, arguments and results are JSON.
What they print goes to standard error; of a process that ends too early the last line there is the reason.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from tinytale_mlx import device

from .results import Row

Figures = dict[str, Any]


class Unavailable(Exception):
    """Why something could not be measured here, in words for its row."""


class Worker:
    """A process with one function; leaving the `with` block ends it, and what it has started."""

    def __init__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        launcher: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ):
        command = [sys.executable, "-m", __name__, function.__module__, function.__name__, json.dumps(arguments)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*launcher, *command],
            env={**os.environ, **(environment or {})},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            assert file
            file.close()

    def turn(self) -> Figures:
        """The next figures. Raises Unavailable where the process has none left, or has failed."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Unavailable(self._reason())
        return json.loads(line)

    def _reason(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "the process was killed, as it happens when memory runs out"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        name, _, rest = (lines or [f"the process ended with code {code}"])[-1].partition(": ")
        if name == "ModuleNotFoundError":
            return f"{rest}; the extra `peers` brings it"
        return rest if name.endswith(("UserError", "Unavailable")) else f"{name}: {rest}".removesuffix(": ")


def call(function: Callable[..., Any], *arguments: Any, environment: dict[str, str] | None = None) -> Figures:
    """What the function returns in a fresh process. Raises Unavailable."""
    with Worker(function, *arguments, environment=environment) as worker:
        return worker.turn()


@contextmanager
def excused(row: Row) -> Iterator[None]:
    """What is unavailable inside is said in the row, and the others go on."""
    try:
        yield
    except Unavailable as error:
        row.missing = str(error)


Side = tuple[Row, Callable[[], Worker]]


def take_turns(sides: Sequence[Side], rounds: int, warm_up: int = 1) -> Iterator[list[Figures | None]]:
    """The figures of every side, round by round; None of one that is unavailable, whose row says why.

    All start at once, do their warm-up turns, which do not count, and then wait while the others have theirs.
    """
    with ExitStack() as stack:
        workers = [None if row.missing else stack.enter_context(start()) for row, start in sides]
        for number in range(warm_up + rounds):
            found = [_turn(row, worker) for (row, _), worker in zip(sides, workers, strict=True)]
            if number >= warm_up:
                yield found


def _turn(row: Row, worker: Worker | None) -> Figures | None:
    if worker is None or row.missing:
        return None
    with excused(row):
        return worker.turn()


def serve(module: str, function: str, arguments: str) -> None:
    """The other end: a result for each line on standard input, None being silence."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        device.configure()
        result = getattr(importlib.import_module(module), function)(*json.loads(arguments))
        turns = result if isinstance(result, Iterator) else iter([result])
        for _ in sys.stdin:
            figures = next(turns, None)
            if figures is not None:
                answers.write(json.dumps(figures) + "\n")
                answers.flush()


if __name__ == "__main__":
    serve(*sys.argv[1:])
