"""Where a training would run: how much memory there is, how fast it multiplies, and how MLX works there."""

import time
from dataclasses import dataclass

import mlx.core as mx

from ..recipe import ModelConfig
from ..recipe.training import Precision
from .chips import Chip


@dataclass(frozen=True)
class Backend:
    """How MLX works on a kind of device, as far as memory is concerned."""

    name: str
    lanes: int = 1
    """Streams that share a batch, side by side; each has gradients of its own until they are added up."""
    fused_norms: bool = True
    """Metal has a kernel for norms, which needs their input and output; a CPU keeps the normalised input as well."""


METAL = Backend("gpu")


def cpu(lanes: int) -> Backend:
    return Backend("cpu", lanes, fused_norms=False)


@dataclass(frozen=True)
class Machine:
    name: str
    backend: Backend
    usable: int
    """Bytes that training may take."""
    teraflops: float
    """Of matrix products: a chip's published peak, or what was measured."""
    utilisation: tuple[float, float]
    """Which share of that a training reaches, from and to."""
    basis: str
    """Where the figures come from, in words."""
    bandwidth: float | None = None
    """GB/s, where it is known."""


WIDE = 512
"""Hidden size from which on matrices are large enough to keep a GPU busy."""
CPU_UTILISATION = (0.20, 0.50)
"""Of a large matrix product, as measured with this program on two x86 cores: 22 % at 1.1M parameters, 46 % at 17M."""


def gpu_utilisation(config: ModelConfig) -> tuple[float, float]:
    """An assumption. Published trainings in MLX reach 34 to 47 % of the float32 peak at 154M parameters (mlx-examples
    #127, M1 Pro to M3 Max) and 40 % at 53M; nothing is published for small ones, whose matrices are small too."""
    return (0.25, 0.50) if config.hidden_size >= WIDE else (0.10, 0.35)


def mac(chip: Chip, config: ModelConfig) -> Machine:
    share = gpu_utilisation(config)
    return Machine(
        chip.name,
        METAL,
        chip.working_set,
        chip.teraflops,
        share,
        f"{chip.name}: estimated, {share[0]:.0%} to {share[1]:.0%} of a published peak of {chip.teraflops:.1f} TFLOPS",
        chip.bandwidth,
    )


DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def measured_teraflops(precision: Precision = "float32", seconds: float = 0.3) -> float:
    """The best of as many matrix products as fit into about that time, after one that warms up."""
    slow = mx.default_device() == mx.Device(mx.cpu) and precision != "float32"
    size = 256 if slow else 1024  # 16-bit products on a CPU take a hundred times as long
    a, b = mx.random.normal((2, size, size), key=mx.random.key(0)).astype(DTYPES[precision])
    mx.eval(a @ b)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best / 1e12
