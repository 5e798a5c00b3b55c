"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) while a model trains: nothing that was learned is lost."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Before training they end the program; during it they ask for a save; the second time they insist."""

    def __init__(self, announced: bool = True) -> None:
        self._announced = announced
        self._armed = self._hung_up = False
        self._received: int | None = None

    def __enter__(self) -> "StopSignals":
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]  # once closed, none is one
        ignored = {number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN}  # as nohup does
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS if number not in ignored}
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
        if number == signal.SIGHUP:
            if self._hung_up:
                return  # shell and system may both tell of one closed terminal: that is nobody who insists
            self._hung_up = True
            self._let_go_of_the_terminal()
        if not self._armed or self._received is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)
        self._received = number
        # Not print(): the handler may have interrupted one.
        with suppress(OSError):
            if self._announced:
                os.write(sys.stderr.fileno(), b"\nfinishing the step and saving; once more to quit at once\n")

    def _let_go_of_the_terminal(self) -> None:
        """It is gone, and to write to it fails: what was for it goes nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
