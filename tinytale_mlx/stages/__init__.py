"""The stages of a model's life: a recipe in, a run directory out. The only package that puts the parts together."""

from .describing import describe
from .loading import Loaded, blueprint, build_model, load
from .scoring import score_held_out, score_text
from .training import TrainResult, train

__all__ = [
    "Loaded",
    "TrainResult",
    "blueprint",
    "build_model",
    "describe",
    "load",
    "score_held_out",
    "score_text",
    "train",
]
