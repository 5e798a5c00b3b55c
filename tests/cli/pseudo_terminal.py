"""A command in a pseudo-terminal, driven as a person drives it."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

PATIENCE = 60
"""Seconds after which a machine is not slow but stuck."""
AGAIN = 3
"""Seconds after which a person presses Ctrl-C again: Python overlooks one that comes just before it waits for a key."""


class Terminal:
    """`tinytale ...` on a screen of its own; `typed` is echoed by the terminal, as always."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._shown = ""  # and not read yet
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tinytale_mlx.cli.app", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb", **environment},
        )
        os.close(theirs)

    def read(self, until: str, patience: float = PATIENCE) -> str:
        """What comes on the screen, up to the end of a pattern; fails where that does not come."""
        deadline = time.monotonic() + patience
        while not (found := re.search(until, self._shown)):
            assert time.monotonic() < deadline, f"no {until!r} in {self._shown!r}"
            if select.select([self._ours], [], [], 0.2)[0]:
                try:
                    data = os.read(self._ours, 4096)
                except OSError:  # Linux says so when the other side has closed
                    data = b""
                assert data, f"it ended without {until!r}: {self._shown!r}"
                self._shown += data.decode(errors="replace").replace("\r", "")
        text, self._shown = self._shown[: found.end()], self._shown[found.end() :]
        return text

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self, until: str) -> str:
        """Ctrl-C, and what comes on the screen, as `read`."""
        for _ in range(PATIENCE // AGAIN):
            self._press()
            with contextlib.suppress(AssertionError):
                return self.read(until, AGAIN)
        return self.read(until)

    def leave(self) -> int:
        """Ctrl-C, and how it ended then."""
        for _ in range(PATIENCE // AGAIN):
            self._press()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(AGAIN)
        return self.code()

    def _press(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)

    def code(self) -> int:
        """How it ended, which it must do by itself."""
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)
