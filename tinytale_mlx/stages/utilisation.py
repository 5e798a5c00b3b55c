"""Model FLOPs utilisation (PaLM, Chowdhery et al. 2022, appendix B): which share of the chip's peak training uses.

Against the published peak of this very chip, or not at all. How many GPU cores it has, which differs within a model of
chip, only macOS knows.
"""

import math
import re
import subprocess
from collections.abc import Callable

from .. import device
from ..planning.chips import CHIPS
from ..planning.flops import flops_per_token
from ..planning.parameters import planned_config
from ..recipe import Recipe


def utilisation(recipe: Recipe, vocab_size: int, processes: int = 1) -> Callable[[float], float | None]:
    """From tokens per second, of all processes together, to a share of 1; None where the peak is not known."""
    peak = gpu_peak() if device.on_gpu() else None
    flops = flops_per_token(planned_config(recipe, vocab_size), recipe.train).training

    def share(tokens_per_second: float) -> float | None:
        if peak is None or not math.isfinite(tokens_per_second):
            return None
        return flops * tokens_per_second / (peak * processes)

    return share


def gpu_peak() -> float | None:
    """FLOP/s of this Mac's GPU, from its cores and the clock of its chip."""
    name = str(device.describe()["device"]).removeprefix("Apple ")
    clocks = {chip.name.partition(",")[0]: chip.gigahertz for chip in CHIPS.values()}
    cores = _cores_of(_registry()) if name in clocks else None
    return None if cores is None else cores * 128 * 2 * clocks[name] * 1e9


def _registry() -> str:
    """What macOS says about its GPU."""
    try:
        command = ["ioreg", "-r", "-d", "1", "-c", "AGXAccelerator"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _cores_of(registry: str) -> int | None:
    found = re.search(r'"gpu-core-count"\s*=\s*(\d+)', registry)
    return int(found[1]) if found else None
