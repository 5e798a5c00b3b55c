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
from mlx.utils import tree_unflatten

from .. import disk
from ..errors import UserError
from ..models.parameters import named_arrays
from ..models.transformer import Transformer
from .averaging import WeightAverage

NAME = re.compile(r"step-\d{6,}")
MODEL, OPTIMIZER, AVERAGE, STATE = "model.safetensors", "optimizer.safetensors", "average.safetensors", "state.json"


def save(
    folder: Path,
    step: int,
    model: Transformer,
    optimizer: optim.Optimizer,
    state: dict[str, Any],
    average: WeightAverage | None = None,
) -> Path:
    """Write `folder/step-NNNNNN` with model.safetensors, optimizer.safetensors and state.json; return its path.

    An average of the weights goes into average.safetensors.
    """
    target = folder / f"step-{step:06d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        mx.save_safetensors(str(temporary / MODEL), _named(model.parameters()))
        mx.save_safetensors(str(temporary / OPTIMIZER), _named(optimizer.state))
        if average is not None:
            mx.save_safetensors(str(temporary / AVERAGE), _named(average.weights))
        (temporary / STATE).write_text(json.dumps({**state, "step": step}, indent=2) + "\n")
        disk.flush_folder(temporary)
        if target.exists():
            _delete(target)
        os.rename(temporary, target)
        disk.flush(folder)
    except (OSError, RuntimeError) as error:  # MLX reports a full disk as a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        reason = (error.strerror if isinstance(error, OSError) else None) or f"{error} (is the disk full?)"
        raise UserError(f"the checkpoint of step {step} could not be written to {folder}: {reason}") from error
    return target


def _named(tree: Any) -> dict[str, mx.array]:
    """The arrays of a tree by name, in an order that is always the same, so that equal states are equal files."""
    return dict(sorted(named_arrays(tree)))


def load(
    path: Path, model: Transformer, optimizer: optim.Optimizer, average: WeightAverage | None = None
) -> dict[str, Any]:
    """Put the checkpoint's weights, optimiser state and average of the weights in place; return its state.json.

    Raises UserError where a file is missing, damaged, or of another model or optimiser.
    """
    try:
        state = json.loads((path / STATE).read_text())
        optimizer.init(model.trainable_parameters())
        weights = _read(path / MODEL, _named(model.parameters()))
        moments = _read(path / OPTIMIZER, _named(optimizer.state))
        if average is not None:
            average.weights = tree_unflatten(list(_read(path / AVERAGE, _named(average.weights)).items()))
    except (OSError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    model.load_weights(list(weights.items()))
    optimizer.state = tree_unflatten(list(moments.items()))
    return state


def load_weights(path: Path, model: Transformer) -> None:
    """Put the checkpoint's weights in place, or the average of them that it has. Raises UserError as `load` does."""
    try:
        file = path / (AVERAGE if (path / AVERAGE).is_file() else MODEL)
        weights = _read(file, _named(model.parameters()))
        model.load_weights(list(weights.items()))
    except (OSError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error


def _read(file: Path, expected: dict[str, mx.array]) -> dict[str, mx.array]:
    """The arrays of a file, all read now: MLX would find out too late that the file is too short."""
    arrays = mx.load(str(file))
    assert isinstance(arrays, dict)
    if {n: a.shape for n, a in arrays.items()} != {n: a.shape for n, a in expected.items()}:
        raise ValueError(f"{file.name} does not fit the recipe")
    mx.eval(arrays)
    return arrays


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"the checkpoint {path} can't be read ({reason}); delete it, and the one before it is used")


def all_checkpoints(folder: Path) -> list[Path]:
    """The complete ones, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if NAME.fullmatch(p.name)), key=lambda p: int(p.name[5:]))


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep`."""
    for path in all_checkpoints(folder)[:-keep]:
        _delete(path)


def _delete(path: Path) -> None:
    """Under its temporary name, lest a half deleted checkpoint look like a whole one."""
    doomed = path.with_name(f".{path.name}.old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)
