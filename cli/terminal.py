"""What a terminal can do: colours, its encoding, a history of what was typed, Ctrl-C."""

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

DIM, RESET = "\x1b[2m", "\x1b[0m"
CONFIDENCE = ((0.8, "\x1b[32m"), (0.4, ""), (0.1, "\x1b[33m"), (0.0, "\x1b[31m"))
"""From which probability on a token has which colour: green, none, yellow, red."""


def has_colour(stream: TextIO) -> bool:
    """Whether colours show on it, and are wanted (https://no-color.org)."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")


def coloured(text: str, probability: float) -> str:
    colour = next(colour for least, colour in CONFIDENCE if probability >= least)
    return f"{colour}{text}{RESET}" if colour and text else text


def dimmed(text: str) -> str:
    return f"{DIM}{text}{RESET}" if has_colour(sys.stdout) else text


def say(text: str) -> None:
    """A sentence beside the output."""
    print(f"tinytale: {text}", file=sys.stderr)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Inside, a warning is a sentence on stderr, without the place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: say(str(message))
        yield


def edit_lines() -> None:
    """From now on input() lets one edit the line, and the arrow keys bring back earlier ones."""
    with contextlib.suppress(ImportError):  # some Pythons come without
        import readline  # noqa: F401


def well_formed(text: str) -> str:
    """What was typed in another encoding than the terminal's has bytes that are no characters: they become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Interrupts:
    """Ctrl-C raises KeyboardInterrupt inside `allowed()` alone; elsewhere it waits for the next time there.

    So it can stop an answer, or the wait for a line, but never the program at a place where nobody expects it.
    """

    def __init__(self) -> None:
        self._allowed = self._waiting = False

    def __enter__(self) -> "Interrupts":
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        self._allowed = True
        try:
            if self._waiting:
                self._waiting = False
                raise KeyboardInterrupt
            yield
        finally:
            self._allowed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._allowed:
            self._waiting = True
            return
        self._allowed = False
        raise KeyboardInterrupt
