"""The stages of a model's life: a recipe in, a run directory out. The only package that puts the parts together."""

from .data_views import conversation_view, data_figures, prepare_data, sample_rows
from .describing import describe
from .inspecting import inspect_tokenizer
from .loading import Loaded, blueprint, build_model, load
from .scoring import score_held_out, score_text
from .tokenizer_folders import TokenizerResult, add_tokens, find_tokenizer, train_tokenizer
from .tokenizing import tokenizer_for
from .training import TrainResult, train

__all__ = [
    "Loaded",
    "TokenizerResult",
    "TrainResult",
    "add_tokens",
    "blueprint",
    "build_model",
    "conversation_view",
    "data_figures",
    "describe",
    "find_tokenizer",
    "inspect_tokenizer",
    "load",
    "prepare_data",
    "sample_rows",
    "score_held_out",
    "score_text",
    "tokenizer_for",
    "train",
    "train_tokenizer",
]
