"""Adapters on the disk, in mlx-lm's format: adapters.safetensors and adapter_config.json.

`mlx_lm.load(model, adapter_path=...)` reads LoRA, DoRA and full adapters. What its format cannot say is written in the
same two files and refused there: learned prompts and prefixes, and arrays trained whole beside LoRA.
"""

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import disk
from ..errors import UserError
from .adapter_value import Adapter

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
METHODS = ("full", "lora", "dora", "prompt", "prefix")


def save_adapter(directory: Path, adapter: Adapter) -> None:
    """Write `directory`, replacing an adapter that is there; complete, or not at all.

    Raises UserError where the disk refuses, and where the directory holds something else.
    """
    write_folder(directory, WEIGHTS, adapter.weights, config_json(adapter))


def config_json(adapter: Adapter) -> dict[str, Any]:
    """mlx-lm's keys, and under "tinytale" what it has none for. The layers are named by their whole paths."""
    blocks = {match[0] for path in adapter.paths if (match := re.match(r".*?\.\d+\.", path))}
    parameters = {"rank": adapter.rank, "scale": adapter.scale, "dropout": adapter.dropout, "keys": adapter.paths}
    return {
        "fine_tune_type": adapter.method,
        "num_layers": len(blocks),
        "lora_parameters": parameters,
        "tinytale": {"base": adapter.base},
    }


def load_adapter(directory: Path) -> Adapter:
    """What we or mlx-lm wrote. Raises UserError for a missing, damaged or empty adapter."""
    config, weights = read_folder(directory, WEIGHTS)
    method = config.get("fine_tune_type", "lora")
    if method not in METHODS:
        raise UserError(f"{directory / CONFIG}: the fine_tune_type {method!r} is not one of {', '.join(METHODS)}")
    parameters, own = config.get("lora_parameters") or {}, config.get("tinytale") or {}
    try:
        scale, dropout = float(parameters.get("scale", 1.0)), float(parameters.get("dropout", 0.0))
    except (TypeError, ValueError, AttributeError):
        raise UserError(f"{directory / CONFIG}: scale and dropout of lora_parameters should be numbers") from None
    adapter = Adapter(method, weights, scale, dropout, own.get("base"))
    if method in ("lora", "dora") and adapter.rank < 1:
        raise UserError(f"the adapter in {directory} has rank 0, so there is nothing in it")
    return adapter


# ---------------------------------------------------------------------- files
def read_folder(directory: Path, name: str) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """adapter_config.json, and the arrays of the file `name`; all read now. Raises UserError."""
    for file in (directory / CONFIG, directory / name):
        if not file.is_file():
            raise UserError(f"{directory} holds no adapter of this format: there is no {file.name}")
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        arrays = mx.load(str(directory / name))
        mx.eval(arrays)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"the adapter in {directory} is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict) or not isinstance(arrays, dict):
        raise UserError(f"the adapter in {directory} is damaged: {CONFIG} should hold one JSON object")
    return config, arrays


def write_folder(directory: Path, name: str, weights: dict[str, mx.array], config: dict[str, Any]) -> None:
    directory = directory.resolve()
    if directory.exists() and any(directory.iterdir()) and not (directory / CONFIG).is_file():
        raise UserError(f"{directory} holds something that is no adapter; choose another folder")
    with disk.writing("the adapter", directory), disk.replacing_folder(directory) as temporary:
        mx.save_safetensors(str(temporary / name), dict(sorted(weights.items())), metadata={"format": "mlx"})
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
