"""Apple's chips: published figures, and nothing that was measured here.

Cores, bandwidth and memory sizes are Apple's (its specification pages). Peaks are the usual arithmetic, cores x 128
multiply-adds x clock: Apple's own 2.6 TFLOPS for the M1 and 3.6 for the M2 with ten cores agree. Clocks of the
M3 and M4 families are third parties' figures. In float16 and bfloat16 these GPUs do no more per second than in
float32, up to the M4; what 16 bits save is memory and its bandwidth.

A GPU may hold about two thirds of a small machine's memory (5,461 MiB of 8 GB, as Metal reports it) and three
quarters of a large one's: that working set, not the memory, is what training has to fit into.
"""

import difflib
from dataclasses import dataclass

from ..errors import UserError

MIB = 1 << 20
WORKING_SET_8GB = 5461 * MIB


@dataclass(frozen=True)
class Chip:
    """A chip with one size of memory; its fastest version but for the base models, where it is the slowest."""

    key: str
    name: str
    gpu_cores: int
    gigahertz: float
    bandwidth: float
    """GB/s."""
    memory_gb: int

    @property
    def teraflops(self) -> float:
        """Peak of the GPU, in float32 and in 16 bits alike."""
        return self.gpu_cores * 128 * 2 * self.gigahertz / 1000

    @property
    def working_set(self) -> int:
        """Bytes that the GPU may use."""
        return working_set_of(self.memory_gb << 30)


def working_set_of(memory: int) -> int:
    """What Metal recommends for so many bytes of memory: two thirds up to 36 GB, else three quarters."""
    if memory <= 8 << 30:
        return min(memory * 2 // 3, WORKING_SET_8GB)
    return memory * 2 // 3 if memory <= 36 << 30 else memory * 3 // 4


_FAMILIES: list[tuple[str, str, int, float, float, list[int]]] = [
    ("m1", "M1", 7, 1.278, 68, [8, 16]),
    ("m1-pro", "M1 Pro", 16, 1.296, 200, [16, 32]),
    ("m1-max", "M1 Max", 32, 1.296, 400, [32, 64]),
    ("m1-ultra", "M1 Ultra", 64, 1.296, 800, [64, 128]),
    ("m2", "M2", 8, 1.398, 100, [8, 16, 24]),
    ("m2-pro", "M2 Pro", 19, 1.398, 200, [16, 32]),
    ("m2-max", "M2 Max", 38, 1.398, 400, [32, 64, 96]),
    ("m2-ultra", "M2 Ultra", 76, 1.398, 800, [64, 128, 192]),
    ("m3", "M3", 8, 1.398, 100, [8, 16, 24]),
    ("m3-pro", "M3 Pro", 18, 1.398, 150, [18, 36]),
    ("m3-max", "M3 Max", 40, 1.398, 400, [48, 64, 128]),
    ("m4", "M4", 10, 1.470, 120, [16, 24, 32]),
    ("m4-pro", "M4 Pro", 20, 1.578, 273, [24, 48, 64]),
    ("m4-max", "M4 Max", 40, 1.578, 546, [48, 64, 128]),
]

CHIPS: dict[str, Chip] = {
    f"{key}-{memory}gb": Chip(f"{key}-{memory}gb", f"{name}, {memory} GB", cores, clock, bandwidth, memory)
    for key, name, cores, clock, bandwidth, memories in _FAMILIES
    for memory in memories
}
DEFAULT_CHIP = "m2-8gb"


def find_chip(name: str) -> Chip:
    """By its key, such as m2-8gb; or without the memory, the smallest. Raises UserError with all that there are."""
    key = name.lower().replace(" ", "-").replace("_", "-")
    for found in (key, *(one for one in CHIPS if one.rpartition("-")[0] == key)):
        if found in CHIPS:
            return CHIPS[found]
    close = difflib.get_close_matches(key, CHIPS, n=1)
    suggestion = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"there is no chip {name!r}{suggestion} (there are {', '.join(CHIPS)})")
