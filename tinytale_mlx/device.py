"""Limits for MLX's memory, chosen from the machine and never left at their defaults.

On an 8 GB Mac the default cache limit is 7.6 GiB, so freed buffers pile up until the system swaps; the GPU's working
set is 5,461 MB there. On a Linux CPU the default is 32 MB, so every large array is mapped and zeroed anew, which makes
elementwise work seven times slower.
"""

import os
import shutil
import sys
from importlib import metadata

import mlx.core as mx

MIB = 1 << 20
COMPILER = "g++"
"""What MLX calls, when the first step runs on a CPU, to fuse elementwise operations."""
NO_COMPILER = f"tinytale: there is no {COMPILER} here, so nothing is compiled and training is slower than it could be."


def configure() -> None:
    """Set the cache limit, and on a GPU the memory limit to its recommended working set.

    On a CPU without a C++ compiler `mx.compile` is switched off, with a word about it.
    """
    if not on_gpu() and not compiles_kernels():
        mx.disable_compile()
        print(NO_COMPILER, file=sys.stderr)
    working_set = int(mx.device_info().get("max_recommended_working_set_size", 0))
    if on_gpu() and working_set:
        mx.set_memory_limit(working_set)
        mx.set_cache_limit(working_set // 4)
    else:
        mx.set_cache_limit(min(physical_memory() // 8, 4096 * MIB))


def on_gpu() -> bool:
    return mx.default_device() == mx.Device(mx.gpu)


def compiles_kernels() -> bool:
    """Whether the first use of a fused operation calls a C++ compiler, which takes seconds each."""
    return not on_gpu() and shutil.which(COMPILER) is not None


def physical_memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe() -> dict[str, str | int]:
    """What a log or a report should say about the machine."""
    information = mx.device_info()
    return {
        "device": str(information.get("device_name", "unknown")),
        "backend": "gpu" if on_gpu() else "cpu",
        "memory_bytes": physical_memory(),
        "cores": os.cpu_count() or 1,
        "mlx": metadata.version("mlx"),
    }
