"""Commands that are killed, and what they have said until then."""

import re
import subprocess
from collections.abc import Callable

Start = Callable[..., subprocess.Popen[str]]

KILL_AT = """
import importlib, itertools, os, signal
module = importlib.import_module({module!r})
original, calls = getattr(module, {name!r}), itertools.count(1)
def deadly(*arguments, **options):
    if next(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
setattr(module, {name!r}, deadly)
"""


def deadly(module: str, name: str, call: int) -> str:
    """Python to run before a command: it kills itself in that call of a function."""
    return KILL_AT.format(module=module, name=name, call=call)


def finish(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=120)[0] or ""
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """What the process has said, up to the line with that text."""
    said = ""
    assert process.stdout
    for line in process.stdout:
        said += line
        if re.search(text, line):
            return said
    raise AssertionError(f"{text!r} was never said, but: {said}")
