"""tinytale: train, tune, align and talk to a small language model on an 8 GB Apple-silicon Mac, in MLX."""

from . import blas as blas  # before anything imports mlx

__version__ = "0.1.0"
