"""Ctrl-C and SIGTERM while a model trains: nothing that was learned is lost."""

import os
import signal
import sys
from types import FrameType


class StopSignals:
    """Before training they end the program; during it they ask for a save; the second time they insist."""

    def __init__(self) -> None:
        self._armed = False
        self._received: int | None = None

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def arm(self) -> None:
        """From now on there is something to save."""
        self._armed = True

    def requested(self) -> bool:
        return self._received is not None

    @property
    def exit_code(self) -> int:
        return 128 + (self._received or signal.SIGINT)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._armed or self._received is not None:
            if number == signal.SIGTERM:
                raise SystemExit(128 + number)
            raise KeyboardInterrupt
        self._received = number
        # Not print(): the handler may have interrupted one.
        os.write(sys.stderr.fileno(), b"\nfinishing the step and saving; once more to quit at once\n")
