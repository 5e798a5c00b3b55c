"""A fast BLAS on Linux, where tinytale is developed and tested. On a Mac nothing here runs.

MLX's Linux CPU wheel links the reference BLAS: about 6 GFLOP/s where MKL or OpenBLAS give 150 to 300 on the
same two cores. A shared library that is loaded first, with its symbols made global, answers MLX's calls instead.
So this has to happen before `import mlx.core`; the package's `__init__` sees to that.
"""

import contextlib
import ctypes
import ctypes.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ADVICE = (
    "tinytale: no fast BLAS found, so training will be 20 to 60 times slower than it could be. "
    "Run `pip install mkl` (x86-64) or install your system's libopenblas."
)
THREAD_FUNCTIONS = [
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
]


class Blas:
    """A loaded BLAS library, whose number of threads can be set."""

    def __init__(self, name: str):
        self.name = name
        library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        self._get: Callable[[], int] | None = None
        for getter, setter in THREAD_FUNCTIONS:
            if hasattr(library, setter):
                self._get, self._set = getattr(library, getter), getattr(library, setter)

    @contextlib.contextmanager
    def single_threaded(self) -> Iterator[None]:
        """One thread per caller inside: for when several streams call it side by side."""
        if self._get is None:
            yield
            return
        before = self._get()
        self._set(1)
        try:
            yield
        finally:
            self._set(before)


def candidates() -> list[str]:
    """Libraries to try, best first: MKL in this environment, then the system's OpenBLAS."""
    found = [str(path) for path in sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"), reverse=True)]
    system = ctypes.util.find_library("openblas")
    return [*found, *([system] if system else []), "libopenblas.so.0"]


def preload() -> Blas | None:
    """Load the first library that can be loaded; None where there is none, or no need."""
    if sys.platform != "linux":
        return None
    for name in candidates():
        try:
            return Blas(name)
        except OSError:
            continue
    print(ADVICE, file=sys.stderr)
    return None


LOADED = preload()

if sys.platform == "linux":
    # MLX walks a graph breadth-first up to this width, 20 by default. Only a wide walk feeds two streams at a time, and
    # so lets the cores share a batch (training/step.py); a narrow one runs them one after the other. It also puts off
    # the gradients of weights, and keeps what they are made of; models/checkpointing.py sees to the order by itself.
    os.environ.setdefault("MLX_BFS_MAX_WIDTH", "1000")


def single_threaded() -> contextlib.AbstractContextManager[None]:
    return LOADED.single_threaded() if LOADED else contextlib.nullcontext()
