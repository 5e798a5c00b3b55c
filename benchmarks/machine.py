"""What every report must say about where its figures come from, and what a process says of its own memory."""

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from tinytale_mlx import blas, device

PACKAGES = ("mlx", "mlx-lm", "numpy", "tokenizers", "sentencepiece", "tiktoken", "torch", "transformers", "peft", "trl")


def facts() -> dict[str, Any]:
    """The machine, the versions, the BLAS and the git revision."""
    described = device.describe()
    return {
        **{name: described[name] for name in ("device", "backend", "cores", "memory_bytes")},
        "platform": platform.platform(),
        "python": platform.python_version(),
        "blas": blas.LOADED.name.rsplit("/", 1)[-1] if blas.LOADED else "the system's",
        "revision": _revision(Path(__file__)),
        "versions": {package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _revision(file: Path) -> str | None:
    """Of the checkout that has this file; None where it was installed, even inside somebody else's checkout."""
    try:
        git = ["git", "-C", str(file.parent)]
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True)
        found = subprocess.run([*git, "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def resident() -> int:
    """Bytes of memory that this process holds now. `ps` says so on Linux and on a Mac."""
    command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def process_peak() -> int:
    """Bytes of memory that this process has held at the most, all libraries included."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
