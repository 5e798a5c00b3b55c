"""Limits for MLX's memory, chosen from the machine and never left at their defaults.

On an 8 GB Mac the default cache limit is 7.6 GiB, so freed buffers pile up until the system swaps; the GPU's working
set is 5,461 MB there. On a Linux CPU the default is 32 MB, so every large array is mapped and zeroed anew, which makes
elementwise work seven times slower.
"""

import os

import mlx.core as mx

MIB = 1 << 20


def configure() -> None:
    """Set the cache limit, and on a GPU the memory limit to its recommended working set."""
    working_set = int(mx.device_info().get("max_recommended_working_set_size", 0))
    if mx.default_device() == mx.Device(mx.gpu) and working_set:
        mx.set_memory_limit(working_set)
        mx.set_cache_limit(working_set // 4)
    else:
        mx.set_cache_limit(min(physical_memory() // 8, 4096 * MIB))


def physical_memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe() -> dict[str, str | int]:
    """What a log or a report should say about the machine."""
    information = mx.device_info()
    return {
        "device": str(information.get("device_name", "unknown")),
        "backend": "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu",
        "memory_bytes": physical_memory(),
        "cores": os.cpu_count() or 1,
        "mlx": mx.__version__,
    }
