"""The stages of a model's life: a recipe in, a run directory out. The only package that puts the parts together."""

from .adapting import load_with_adapter
from .checking import Check, doctor
from .data_views import conversation_view, data_figures, prepare_data, sample_rows
from .describing import describe
from .finetuning import FinetuneResult, finetune, finetune_recipe
from .generating import generate, generate_all, stream, with_settings
from .inspecting import inspect_tokenizer
from .loading import Loaded, blueprint, build_model, load
from .planning import Plan, plan
from .scoring import score_held_out, score_text
from .shrinking import fuse_adapter, quantize_model
from .together import leading, leads
from .tokenizer_folders import TokenizerResult, add_tokens, find_tokenizer, train_tokenizer
from .tokenizing import tokenizer_for
from .trackers import Tracker
from .training import TrainResult, follow, train

__all__ = [
    "Check",
    "FinetuneResult",
    "Loaded",
    "Plan",
    "TokenizerResult",
    "Tracker",
    "TrainResult",
    "add_tokens",
    "blueprint",
    "build_model",
    "conversation_view",
    "data_figures",
    "describe",
    "doctor",
    "find_tokenizer",
    "finetune",
    "finetune_recipe",
    "follow",
    "fuse_adapter",
    "generate",
    "generate_all",
    "inspect_tokenizer",
    "leading",
    "leads",
    "load",
    "load_with_adapter",
    "plan",
    "prepare_data",
    "quantize_model",
    "sample_rows",
    "score_held_out",
    "score_text",
    "stream",
    "tokenizer_for",
    "train",
    "train_tokenizer",
    "with_settings",
]
