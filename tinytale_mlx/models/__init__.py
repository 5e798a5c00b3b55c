"""The mathematics of the model, and nothing else: no optimiser, no data, no device."""

from .transformer import Transformer

__all__ = ["Transformer"]
