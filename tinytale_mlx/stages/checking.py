"""Is everything here that training needs, and is it set up well? One check after the other, each with its advice."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from .. import blas, device, run
from ..planning.machine import measured_teraflops
from ..training.step import cpu_lanes

PACKAGES = ["tinytale", "mlx", "mlx-lm", "numpy", "sentencepiece", "tokenizers", "datasets", "safetensors", "pydantic"]
SLOW = 0.03
"""TFLOP/s of float32 below which a library for matrix products is not a fast one."""
ROOM = 5e9
"""Bytes on the disk for a few runs."""
LEAST_ROOM = 100e6

Status = Literal["ok", "advice", "problem"]


@dataclass(frozen=True)
class Check:
    name: str
    status: Status
    """A problem prevents training; advice does not."""
    text: str
    facts: dict[str, Any]


def doctor(root: Path = run.ROOT) -> list[Check]:
    """All checks; what they cannot find out they report instead of raising."""
    return [
        _python(),
        _packages(),
        _device(),
        _products(),
        _compiler(),
        _memory(),
        _limits(),
        *_watchdog(),
        _disk(root),
    ]


def _python() -> Check:
    version = platform.python_version()
    text = f"{version} on {platform.platform(terse=True)}, {platform.machine()}"
    facts = {"version": version, "platform": platform.platform(), "machine": platform.machine()}
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        advice = "this Python is made for Intel and can't use the GPU; install one for Apple silicon"
        return Check("Python", "problem", f"{text}: {advice}", facts)
    return Check("Python", "ok", text, facts)


def _packages() -> Check:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    missing = [name for name, version in found.items() if version is None]
    text = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if missing:
        return Check("packages", "problem", f"{text}; missing: {', '.join(missing)}; install tinytale again", found)
    return Check("packages", "ok", text, found)


def _device() -> Check:
    facts = device.describe()
    cores = f"{facts['cores']} cores"
    if device.on_gpu():
        return Check("device", "ok", f"GPU, {facts['device']}, {cores}", facts)
    if sys.platform == "darwin":
        return Check("device", "advice", f"CPU ({cores}), though a Mac has a GPU; is MLX_DEVICE set?", facts)
    return Check("device", "ok", f"CPU, {facts['device']}, {cores}; a batch is shared among {len(cpu_lanes())}", facts)


def _products() -> Check:
    """Which library multiplies matrices, and how fast."""
    if sys.platform == "linux" and not device.on_gpu():
        library = Path(blas.LOADED.name).name if blas.LOADED else "the slow one in MLX's wheel"
    else:
        library = "MLX's own kernels" if device.on_gpu() else "Accelerate"
    try:
        speed = measured_teraflops()
    except RuntimeError as error:
        return Check("BLAS", "problem", f"{library} fails: {' '.join(str(error).split())}", {"library": library})
    facts = {"library": library, "gflops": 1000 * speed}
    text = f"{library}, {1000 * speed:,.0f} GFLOP/s in float32"
    if speed < SLOW:
        advice = "pip install mkl (x86-64), or your system's libopenblas" if sys.platform == "linux" else "is it busy?"
        return Check("BLAS", "advice", f"{text}, which is slow; {advice}", facts)
    return Check("BLAS", "ok", text, facts)


def _compiler() -> Check:
    if device.on_gpu():
        return Check("compiler", "ok", "none needed: Metal compiles its kernels itself", {"path": None})
    path = shutil.which(device.COMPILER)
    if path is None:
        text = f"there is no {device.COMPILER}, so training is slower than it could be; install a C++ compiler"
        return Check("compiler", "advice", text, {"path": None})
    return Check("compiler", "ok", f"{path}, for MLX's fused operations", {"path": path})


def _memory() -> Check:
    physical, usable = device.physical_memory(), device.usable_memory()
    which = "the GPU's working set" if device.on_gpu() else "usable for training"
    text = f"{_mb(physical)}, {_mb(usable)} {which}"
    facts = {"physical_bytes": physical, "usable_bytes": usable}
    if usable < 4e9:
        return Check("memory", "advice", f"{text}; ask `tinytale plan` before you train more than the demo", facts)
    return Check("memory", "ok", text, facts)


def _limits() -> Check:
    chosen = device.limits()
    wired = f", wired {_mb(chosen.wired)}" if chosen.wired else ""
    text = f"would be set: memory {_mb(chosen.memory)}, cache {_mb(chosen.cache)}{wired}"
    return Check("limits", "ok", text, vars(chosen))


def _watchdog() -> list[Check]:
    """macOS ends what keeps the GPU from drawing the screen for too long; MLX dies of that without a Python error."""
    if not device.on_gpu() or sys.platform != "darwin":
        return []
    text = (
        "should training end with ErrorImpactingInteractivity, macOS wanted the GPU for the screen: use a smaller "
        "train.batch_size with more train.accumulate, or close the lid and run it under `caffeinate -s`; "
        "`tinytale train --resume` goes on from the last checkpoint"
    )
    return [Check("GPU watchdog", "advice", text, {})]


def _disk(root: Path) -> Check:
    there = root.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    facts = {"folder": str(root), "free_bytes": free}
    text = f"{free / 1e9:,.1f} GB free for {root}/"
    if not there.is_dir():
        return Check("disk", "problem", f"{there} is a file, not a folder; choose another one with --runs", facts)
    if not os.access(there, os.W_OK):
        return Check("disk", "problem", f"{there} can't be written to; choose another folder with --runs", facts)
    if free < LEAST_ROOM:
        return Check("disk", "problem", f"{text}, which is not enough for a checkpoint", facts)
    if free < ROOM:
        return Check("disk", "advice", f"{text}; checkpoints of larger models need more", facts)
    return Check("disk", "ok", text, facts)


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
