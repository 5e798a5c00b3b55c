"""A terminal that is closed while a model trains: what was learned is saved, though nobody is there to be told."""

import fcntl
import os
import pty
import re
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SLOW = "import time, tinytale_mlx.training.loop as l; r = l.learning_rate\n"
SLOW += "l.learning_rate = lambda *a: (time.sleep(0.05), r(*a))[1]"
Start = Callable[..., subprocess.Popen[str]]


def test_a_closed_terminal(nano: Path, start: Start) -> None:
    """Its line of progress had nowhere to go any more, and that did not stop it from saving."""
    terminal, inside = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = start(
        "train", nano, "--set", "train.save_every=100", cwd=nano.parent, before=SLOW,
        stdin=inside, stdout=inside, stderr=inside, preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(inside)
    said = ""
    while not re.search(r"\b[3-9]/24", said):
        said += os.read(terminal, 4096).decode(errors="replace")
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    (saved,) = nano.parent.glob("runs/nano/checkpoints/*")
    assert saved.name > "step-000002"
    assert (nano.parent / "runs/nano/model/config.json").is_file()


def test_told_twice(nano: Path, start: Start) -> None:
    """By the shell and by the system: it is the same closed terminal, and the step is finished and saved."""
    stuck = "import time, tinytale_mlx.training.loop as l; r = l.learning_rate\n"
    stuck += "l.learning_rate = lambda n, t: (print('at', n), time.sleep(1 if n == 7 else 0), r(n, t))[2]"
    process = start("train", nano, cwd=nano.parent, before=stuck)
    assert process.stdout
    while "at 7" not in process.stdout.readline():
        pass
    for _ in range(2):
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(0.2)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGHUP, said
    assert "saved at step 8" in said


def test_nohup(nano: Path, start: Start) -> None:
    """What was told to ignore that signal does."""
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process = start("train", nano, cwd=nano.parent, before=ignore + SLOW)
    deadline = time.monotonic() + 60
    while not (nano.parent / "runs/nano/checkpoints/step-000005").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGHUP)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert "finishing the step" not in said
