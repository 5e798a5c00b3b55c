"""Adapters of PEFT, the PyTorch library: adapter_model.safetensors and adapter_config.json, read and written.

Its matrices are ours transposed, under other names: `base_model.model.PATH.lora_A.weight` is [rank, in], `lora_B`
[out, rank], `lora_magnitude_vector` DoRA's m. PATH is that of transformers, which for Llama and Qwen is ours too.
Source: PEFT 0.21, `tuners/lora/{config,layer}.py` and `utils/save_and_load.py`.
"""

import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import UserError
from .adapter_files import CONFIG, read_folder, write_folder
from .adapter_value import Adapter
from .merging import equal_ranks
from .targets import is_tied, token_embedding

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
ENDINGS = {
    ".lora_A.weight": ".lora_a",
    ".lora_B.weight": ".lora_b",
    ".lora_embedding_A": ".lora_a",
    ".lora_embedding_B": ".lora_b",
    ".lora_magnitude_vector": ".m",
    ".lora_magnitude_vector.weight": ".m",  # before PEFT 0.10
}
VARIANTS = (
    "bias", "lora_bias", "fan_in_fan_out", "alora_invocation_tokens", "trainable_token_indices", "target_parameters",
    "layer_replication", "arrow_config", "use_qalora", "use_bdlora",
)  # fmt: skip
"""Keys of PEFT that make something else of LoRA."""


def export_peft(directory: Path, adapter: Adapter, model: nn.Module, base_name: str = "") -> None:
    """Write a LoRA, DoRA or prompt adapter for `model` as PEFT has it.

    `base_name` is what PEFT is to load as the base. Arrays trained whole become PEFT's modules_to_save.

    Raises UserError for the other methods, and where PEFT would compute something else (tied embeddings).
    """
    if adapter.method == "prompt":
        _export_prompt(directory, adapter, base_name)
        return
    if adapter.method not in ("lora", "dora"):
        raise UserError(
            f"PEFT has no adapters of the method {adapter.method} as tinytale has it; LoRA, DoRA, prompt only"
        )
    embedding = token_embedding(model)[0]
    _refuse_tied(adapter, model)
    weights = {PREFIX + name: array for name, array in adapter.whole.items()}
    for path in adapter.paths:
        names = ("lora_embedding_A", "lora_embedding_B") if path == embedding else ("lora_A.weight", "lora_B.weight")
        weights[f"{PREFIX}{path}.{names[0]}"] = adapter.weights[f"{path}.lora_a"].T
        weights[f"{PREFIX}{path}.{names[1]}"] = adapter.weights[f"{path}.lora_b"].T
        if adapter.method == "dora":
            weights[f"{PREFIX}{path}.lora_magnitude_vector"] = adapter.weights[f"{path}.m"]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": adapter.rank,
        "lora_alpha": adapter.scale * adapter.rank,
        "lora_dropout": adapter.dropout,
        "use_rslora": False,
        "use_dora": adapter.method == "dora",
        "target_modules": adapter.paths,
        "modules_to_save": sorted({name.rpartition(".")[0] for name in adapter.whole}) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_folder(directory, WEIGHTS, {name: mx.contiguous(array) for name, array in weights.items()}, config)


def _export_prompt(directory: Path, adapter: Adapter, base_name: str) -> None:
    prompt = adapter.weights["prompt"]
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "num_virtual_tokens": len(prompt),
        "token_dim": prompt.shape[1],
        "num_transformer_submodules": 1,
        "inference_mode": True,
    }
    write_folder(directory, WEIGHTS, {"prompt_embeddings": prompt}, config)


def import_peft(directory: Path, model: nn.Module) -> Adapter:
    """An adapter that PEFT wrote, for `model`. Ranks and scales of their own for some layers are worked in.

    Raises UserError for kinds of adapters other than LoRA, DoRA and prompt tuning, and for parts that we lack.
    """
    config, arrays = read_folder(directory, WEIGHTS)
    kind = config.get("peft_type")
    if kind == "PROMPT_TUNING" and "prompt_embeddings" in arrays:
        return Adapter("prompt", {"prompt": arrays["prompt_embeddings"].astype(mx.float32)})
    if kind != "LORA":
        raise UserError(f"{directory / CONFIG}: tinytale reads PEFT's LORA and PROMPT_TUNING, not {kind}")
    lacking = [key for key in VARIANTS if config.get(key) not in (None, False, "none", {}, [])]
    if lacking:
        raise UserError(f"{directory / CONFIG}: tinytale has no LoRA with {' and '.join(lacking)}")
    # PEFT writes the frozen table of an adapted embedding too; it is the base's.
    weights = dict(_renamed(name, array) for name, array in arrays.items() if ".base_layer." not in name)
    scales = {path: _scale(path, weights, config) for path in Adapter("lora", weights).paths}
    if not scales:
        raise UserError(f"the adapter in {directory} has no update in it")
    common = next(iter(scales.values()))
    for path, scale in scales.items():  # one multiplier for all layers; what differs goes into B
        weights[f"{path}.lora_b"] = weights[f"{path}.lora_b"] * (scale / common)
    method = "dora" if config.get("use_dora") else "lora"
    adapter = Adapter(method, equal_ranks(weights), common, float(config.get("lora_dropout", 0.0)))
    _refuse_tied(adapter, model)
    return adapter


def _renamed(name: str, array: mx.array) -> tuple[str, mx.array]:
    path = name.removeprefix(PREFIX)
    for theirs, ours in ENDINGS.items():
        if path.endswith(theirs):
            array = array.T if array.ndim == 2 else array
            return path.removesuffix(theirs) + ours, mx.contiguous(array.astype(mx.float32))
    return path, array


def _scale(path: str, weights: dict[str, mx.array], config: dict[str, Any]) -> float:
    """alpha / rank, or with rsLoRA alpha / √rank, of this layer; patterns are PEFT's regular expressions."""
    rank = weights[f"{path}.lora_a"].shape[1]
    patterns = config.get("alpha_pattern") or {}
    own = [alpha for pattern, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", path)]
    alpha = float(own[0] if own else config.get("lora_alpha", 8))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _refuse_tied(adapter: Adapter, model: nn.Module) -> None:
    embedding = token_embedding(model)[0]
    if embedding in adapter.paths and is_tied(model):
        raise UserError(
            f"{embedding} is the head as well; PEFT adapts only the lookup of such a table, and tinytale both"
        )
