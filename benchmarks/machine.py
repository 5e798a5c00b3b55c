"""What every report must say about where its figures come from."""

import os
import platform
import subprocess
import sys
from importlib import metadata

from tinytale_mlx import blas, device


def facts() -> dict[str, str | int]:
    """The machine, the versions, the BLAS, the git revision and the command."""
    return {
        **device.describe(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "blas": blas.LOADED.name.rsplit("/", 1)[-1] if blas.LOADED else "the system's",
        "torch": _version("torch"),
        "mlx_lm": _version("mlx-lm"),
        "revision": _revision(),
        "command": " ".join(["python -m tinytale_mlx.benchmarks." + _module(), *sys.argv[1:]]),
    }


def _module() -> str:
    return sys.argv[0].rsplit("/", 1)[-1].removesuffix(".py")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _revision() -> str:
    try:
        command = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def resident() -> int:
    """Bytes of memory that this process holds now. `ps` says so on Linux and on a Mac."""
    command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
