"""Limits for MLX's memory, chosen from the machine and never left at their defaults.

On an 8 GB Mac the default cache limit is 7.6 GiB, so freed buffers pile up until the system swaps; the GPU's working
set is 5,461 MB there. On a Linux CPU the default is 32 MB, so every large array is mapped and zeroed anew, which makes
elementwise work seven times slower.

Wiring keeps buffers from being paged out. To wire the whole working set, as mlx-lm does, takes from macOS what it
needs itself: small machines froze. Half of it holds what every step touches, weights and optimiser.
"""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

import mlx.core as mx

MIB = 1 << 20
COMPILER = "g++"
"""What MLX calls, when the first step runs on a CPU, to fuse elementwise operations."""
NO_COMPILER = f"tinytale: there is no {COMPILER} here, so nothing is compiled and training is slower than it could be."
WIRED_FROM_MACOS = 15


@dataclass(frozen=True)
class Limits:
    """In bytes."""

    memory: int
    """Above it MLX waits for what it has begun, before it begins more."""
    cache: int
    """Of freed buffers that are kept for the next of their size."""
    wired: int
    """Of buffers that macOS may not page out; 0 where there is no such thing."""


def configure() -> None:
    """Set MLX's limits. On a CPU without a C++ compiler `mx.compile` is switched off, with a word about it."""
    if not on_gpu() and not compiles_kernels():
        mx.disable_compile()
        print(NO_COMPILER, file=sys.stderr)
    chosen = limits()
    mx.set_memory_limit(chosen.memory)
    mx.set_cache_limit(chosen.cache)
    if chosen.wired:
        mx.set_wired_limit(chosen.wired)


def limits() -> Limits:
    """What `configure` sets here: on a GPU from its working set, on a CPU from the memory."""
    usable = usable_memory()
    if not on_gpu():
        return Limits(usable, min(physical_memory() // 8, 4096 * MIB), 0)
    return Limits(usable, usable // 4, usable // 2 if macos_version() >= WIRED_FROM_MACOS else 0)


def usable_memory() -> int:
    """Bytes that a training may take at its peak: the GPU's working set, or nine tenths of a computer's memory."""
    working_set = int(mx.device_info().get("max_recommended_working_set_size", 0))
    if on_gpu():
        return working_set or physical_memory() * 2 // 3
    return physical_memory() * 9 // 10


def on_gpu() -> bool:
    return mx.default_device() == mx.Device(mx.gpu)


def compiles_kernels() -> bool:
    """Whether the first use of a fused operation calls a C++ compiler, which takes seconds each."""
    return not on_gpu() and shutil.which(COMPILER) is not None


def physical_memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def macos_version() -> int:
    """15 for macOS 15.3; 0 elsewhere."""
    return int(platform.mac_ver()[0].partition(".")[0] or 0)


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
