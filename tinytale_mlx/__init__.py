"""tinytale: train, tune, align and talk to a small language model on an 8 GB Apple-silicon Mac, in MLX.

from tinytale_mlx import generate, load, stream
model = load("runs/latest")
print(generate(model, "Once upon a time"))
"""

from typing import TYPE_CHECKING, Any

from . import blas as blas  # before anything imports mlx

if TYPE_CHECKING:
    from .stages import generate, generate_all, load, stream

__version__ = "0.1.0"
__all__ = ["generate", "generate_all", "load", "stream"]


def __getattr__(name: str) -> Any:
    """The public functions, imported when they are first used: to import tinytale_mlx takes no time."""
    if name in __all__:
        from . import stages

        return getattr(stages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
