"""What a checkpoint holds: weights, the optimiser's state, an average of the weights, and where training was.

Safetensors and JSON only. How its folder survives power cuts and bad disks is the matter of `checkpoint_files.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_unflatten

from ..errors import UserError
from ..models.parameters import named_arrays
from ..models.transformer import Transformer
from .averaging import WeightAverage
from .checkpoint_files import (
    STATE,
    Damaged,
    all_checkpoints,
    best_first,
    damaged,
    prune,
    set_aside,
    verify,
    writing,
)

__all__ = ["Damaged", "all_checkpoints", "load", "load_best_weights", "load_newest", "load_weights", "prune", "save"]

MODEL, OPTIMIZER, AVERAGE = "model.safetensors", "optimizer.safetensors", "average.safetensors"
Arrays = dict[str, mx.array]


def save(
    folder: Path,
    step: int,
    model: Transformer,
    optimizer: optim.Optimizer,
    state: dict[str, Any],
    average: WeightAverage | None = None,
) -> Path:
    """Write `folder/step-NNNNNN` with model.safetensors, optimizer.safetensors and state.json; return its path.

    An average of the weights goes into average.safetensors. `val_loss` in the state is what `prune` goes by.
    Raises UserError where the disk refuses.
    """
    with writing(folder, step) as temporary:
        mx.save_safetensors(str(temporary / MODEL), _named(model.parameters()))
        mx.save_safetensors(str(temporary / OPTIMIZER), _named(optimizer.state))
        if average is not None:
            mx.save_safetensors(str(temporary / AVERAGE), _named(average.weights))
        (temporary / STATE).write_text(json.dumps({**state, "step": step}, indent=2) + "\n", encoding="utf-8")
    return folder / f"step-{step:06d}"


def _named(tree: Any) -> Arrays:
    """The arrays of a tree by name, in an order that is always the same, so that equal states are equal files."""
    return dict(sorted(named_arrays(tree)))


def load(
    path: Path, model: Transformer, optimizer: optim.Optimizer, average: WeightAverage | None = None
) -> dict[str, Any]:
    """Put the checkpoint's weights, optimiser state and average of the weights in place; return its state.json.

    An average that a checkpoint does not have begins with its weights.

    Raises:
        Damaged: a file is missing or not what was written.
        UserError: it is of another model or optimiser; which array says so.
    """
    verify(path)
    optimizer.init(model.trainable_parameters())
    weights = _read(path, MODEL, _named(model.parameters()))
    moments = _read(path, OPTIMIZER, _named(optimizer.state))
    means = None
    if average is not None and (path / AVERAGE).is_file():
        means = _read(path, AVERAGE, _named(average.weights))
    model.load_weights(list(weights.items()))
    optimizer.state = tree_unflatten(list(moments.items()))
    if average is not None:
        average.weights = tree_unflatten(list(means.items())) if means else _average_of(model)
    return json.loads((path / STATE).read_text(encoding="utf-8"))


def _average_of(model: Transformer) -> dict:
    return WeightAverage(model.trainable_parameters()).weights


def load_newest(
    folder: Path,
    model: Transformer,
    optimizer: optim.Optimizer,
    average: WeightAverage | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any] | None:
    """`load` the newest checkpoint that is whole; None where there is no checkpoint.

    Damaged ones are renamed, lest they count as the newest, and `report` gets a sentence about each.

    Raises:
        UserError: all are damaged, or one is of another model or optimiser.
    """
    found: list[tuple[Path, Damaged]] = []
    for path in reversed(all_checkpoints(folder)):
        try:
            state = load(path, model, optimizer, average)
        except Damaged as error:
            found.append((path, error))
            continue
        for bad, error in found:
            report(f"{error}; it is now called {set_aside(bad).name}, and training goes on from step {state['step']}")
        return state
    if found:
        raise UserError(f"{found[0][1]}, and there is none before it that is whole; start a new run") from found[0][1]
    return None


def load_weights(path: Path, model: Transformer) -> None:
    """Put the checkpoint's weights in place, or the average of them that it has. Raises UserError as `load` does."""
    name = AVERAGE if (path / AVERAGE).is_file() else MODEL
    verify(path, [name])
    model.load_weights(list(_read(path, name, _named(model.parameters())).items()))


def load_best_weights(folder: Path, model: Transformer) -> Path | None:
    """`load_weights` of the whole checkpoint with the lowest validation loss; which one, or None if there is none."""
    for path in best_first(folder):
        try:
            load_weights(path, model)
        except Damaged:
            continue
        return path
    return None


def _read(path: Path, name: str, expected: Arrays) -> Arrays:
    """The arrays of a file, all read now: MLX would find out too late that the file is too short."""
    try:
        arrays = mx.load(str(path / name))
        mx.eval(arrays)
    except (OSError, RuntimeError, ValueError) as error:
        raise damaged(path, " ".join(str(error).split())) from error
    assert isinstance(arrays, dict)
    if found := _differences(arrays, expected):
        more = f", and {len(found) - 1} more differ" if len(found) > 1 else ""
        raise UserError(f"the checkpoint {path} does not fit the recipe: in {name} {found[0]}{more}")
    return arrays


def _differences(arrays: Arrays, expected: Arrays) -> list[str]:
    there, wanted = ({name: _describe(array) for name, array in one.items()} for one in (arrays, expected))
    return [
        f"{name} is {there.get(name, 'missing')} and should be {wanted.get(name, 'absent')}"
        for name in sorted({*there, *wanted})
        if there.get(name) != wanted.get(name)
    ]


def _describe(array: mx.array) -> str:
    return f"{str(array.dtype).removeprefix('mlx.core.')} {list(array.shape)}"
