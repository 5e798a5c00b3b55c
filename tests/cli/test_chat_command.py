"""`tinytale chat`, through a pipe and at a terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FEW = ["-m", "6", "-t", "0"]


def test_pipe(trained: Path, tinytale) -> None:
    """One answer per line, and nothing else on stdout."""
    result = tinytale("chat", *FEW, stdin="Tell me a tale.\n\nAnd then?\n")
    assert result.code == 0
    first = tinytale("chat", *FEW, stdin="Tell me a tale.\n").out
    assert result.out.startswith(first)
    assert len(result.out) > len(first)


def test_reset(trained: Path, tinytale) -> None:
    """Afterwards the model answers as if nothing had been said."""
    said = tinytale("chat", *FEW, stdin="Tell me a tale.\n/reset\nTell me a tale.\n").out
    first, second = said.split("(a new conversation)\n")
    assert first == second


def test_commands(trained: Path, tinytale) -> None:
    result = tinytale("chat", *FEW, stdin="/help\n/frobnicate now\n/quit\nTell me a tale.\n")
    help_, unknown = result.out.splitlines()
    assert "/reset forgets the conversation" in help_
    assert unknown == f"there is no command /frobnicate; {help_}"


def test_long_conversation(trained: Path, tinytale) -> None:
    """What no longer fits is forgotten, and that is said."""
    result = tinytale("chat", *FEW, stdin="Tell me a long tale about a fox.\n" * 4)
    assert result.code == 0
    assert "forgotten" in result.err


def test_what_a_model_cannot_read(nano: Path, tinytale) -> None:
    """A character that it has never seen costs one sentence, not the conversation."""
    Path("text.txt").write_text("ab ba \n" * 200)
    small = ["--set", "tokenizer.kind=char", "--set", "tokenizer.special_tokens=[]"]
    assert tinytale("train", nano, "--steps", "1", "--data", "text.txt", *small).code == 0
    result = tinytale("chat", *FEW, stdin="ab\nxyz\nba\n")
    assert result.code == 0
    assert len([line for line in result.err.splitlines() if line.startswith("tinytale: ")]) == 1


# ---------------------------------------------------------------------- at a terminal
class Terminal:
    """A chat in a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "tinytale_mlx.cli.app", "chat", *arguments]
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb"},
        )
        os.close(theirs)

    def read(self, until: str) -> str:
        """What comes on the screen, up to a pattern."""
        text, deadline = "", time.monotonic() + 60
        while not re.search(until, text):
            assert time.monotonic() < deadline, f"no {until!r} in {text!r}"
            if select.select([self._ours], [], [], 0.2)[0]:
                try:
                    text += os.read(self._ours, 4096).decode(errors="replace").replace("\r\n", "\n")
                except OSError:  # the other side has closed
                    break
        return text

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)

    def code(self) -> int:
        return self._process.wait(30)


@pytest.mark.slow
def test_terminal(trained: Path) -> None:
    screen = Terminal("-t", "1", "-m", "100000")
    greeting = screen.read("\nyou> ")
    assert greeting.startswith("runs/nano/model: Ask it for a tale. /reset forgets")
    screen.type("Tell me a tale.\n")
    screen.read(r"Tell me a tale\.\n[^\n]{5}")
    screen.interrupt()  # stops the answer, which might go on for minutes
    assert " ..." in screen.read("\nyou> ")
    time.sleep(0.5)  # at the prompt it waits for a key, and Python for a moment like that
    screen.interrupt()  # says how to leave
    assert "(Ctrl-D or /quit ends)" in screen.read("\nyou> ")
    screen.type("/reset\n")
    assert "(a new conversation)" in screen.read("\nyou> ")
    screen.type("\x04")
    assert screen.code() == 0
