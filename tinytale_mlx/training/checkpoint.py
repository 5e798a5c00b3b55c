"""Checkpoints that survive anything: written under another name, flushed to the disk, then renamed.

A folder `step-000500` is therefore either complete or absent, whenever the machine is switched off. Safetensors and
JSON only.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from ..errors import UserError
from ..models.transformer import Transformer

NAME = re.compile(r"step-\d{6,}$")


def save(folder: Path, step: int, model: Transformer, optimizer: optim.Optimizer, state: dict[str, Any]) -> Path:
    """Write `folder/step-NNNNNN` with model.safetensors, optimizer.safetensors and state.json; return its path."""
    target = folder / f"step-{step:06d}"
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        mx.save_safetensors(str(temporary / "model.safetensors"), _named(model.parameters()))
        mx.save_safetensors(str(temporary / "optimizer.safetensors"), _named(optimizer.state))
        (temporary / "state.json").write_text(json.dumps({**state, "step": step}, indent=2) + "\n")
        for file in [*temporary.iterdir(), temporary]:
            flush(file)
        if target.exists():
            shutil.rmtree(target)
        os.rename(temporary, target)
        flush(folder)
    except (OSError, RuntimeError) as error:  # MLX reports a full disk as a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"the checkpoint of step {step} could not be written to {folder}: {error}") from error
    return target


def _named(tree: Any) -> dict[str, mx.array]:
    """The arrays of a tree by name, in an order that is always the same, so that equal states are equal files."""
    return dict(sorted(tree_flatten(tree)))


def load(path: Path, model: Transformer, optimizer: optim.Optimizer) -> dict[str, Any]:
    """Put the checkpoint's weights and optimiser state in place; return its state.json."""
    state = read_state(path)
    load_weights(path, model)
    try:
        saved = mx.load(str(path / "optimizer.safetensors"))
    except RuntimeError as error:
        raise UserError(f"{path}/optimizer.safetensors can't be read: {error}") from None
    assert isinstance(saved, dict)
    optimizer.state = tree_unflatten(list(saved.items()))
    return state


def load_weights(path: Path, model: Transformer) -> None:
    try:
        model.load_weights(str(path / "model.safetensors"), strict=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}/model.safetensors does not fit the recipe: {error}") from None


def read_state(path: Path) -> dict[str, Any]:
    return json.loads((path / "state.json").read_text())


def all_checkpoints(folder: Path) -> list[Path]:
    """The complete ones, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if NAME.match(p.name)), key=lambda p: int(p.name[5:]))


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep`, and what an interrupted save left behind."""
    for path in all_checkpoints(folder)[:-keep]:
        shutil.rmtree(path)
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path)


def flush(path: Path) -> None:
    """Have the operating system put a file, or a folder's list of names, on the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
