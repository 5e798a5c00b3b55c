"""What processes of the tests of `apart` do; they import it by name."""

import os
import signal
from collections.abc import Iterator

from tinytale_mlx.errors import UserError


def echo(*arguments: object) -> dict[str, object]:
    print("this is not the answer")
    return {"arguments": arguments, "process": os.getpid()}


def count(start: int) -> Iterator[dict[str, int]]:
    while True:
        yield {"number": start, "process": os.getpid()}
        start += 1


def crash_after(turns: int) -> Iterator[dict[str, int]]:
    for number in range(turns):
        yield {"number": number}
    raise RuntimeError("all of it is lost")


def needs_a_package() -> None:
    import a_package_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401


def refuses() -> None:
    raise UserError("there is no such thing")


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
