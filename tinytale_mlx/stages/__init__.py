"""The stages of a model's life: a recipe in, a run directory out. The only package that puts the parts together."""

from .adapting import load_with_adapter
from .aligning import AlignResult, align, align_recipe
from .checking import Check, doctor
from .data_views import conversation_view, data_figures, prepare_data, sample_rows
from .describing import describe
from .exporting import export_model
from .finetuning import FinetuneResult, finetune, finetune_recipe
from .generating import generate, generate_all, stream, with_settings
from .inspecting import inspect_tokenizer
from .loading import Loaded, blueprint, build_model, load
from .planning import Plan, plan
from .reporting import Report, report_run, write_page
from .scoring import score_held_out, score_text
from .shrinking import fuse_adapter, place_for, quantize_model
from .together import leading, leads
from .tokenizer_folders import TokenizerResult, add_tokens, find_tokenizer, train_tokenizer
from .tokenizing import tokenizer_for
from .trackers import Tracker
from .training import TrainResult, follow, train
from .tune_planning import plan_finetune

__all__ = [
    "AlignResult",
    "Check",
    "FinetuneResult",
    "Loaded",
    "Plan",
    "Report",
    "TokenizerResult",
    "Tracker",
    "TrainResult",
    "add_tokens",
    "align",
    "align_recipe",
    "blueprint",
    "build_model",
    "conversation_view",
    "data_figures",
    "describe",
    "doctor",
    "export_model",
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
    "place_for",
    "plan",
    "plan_finetune",
    "prepare_data",
    "quantize_model",
    "report_run",
    "sample_rows",
    "score_held_out",
    "score_text",
    "stream",
    "tokenizer_for",
    "train",
    "train_tokenizer",
    "with_settings",
    "write_page",
]
