"""Which checkpoints a run leaves behind, and which weights its model directory gets."""

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.training import checkpoint_files

WORSE = ("--steps", "12", "--set", "train.validate_every=2", "--set", "train.learning_rate=3.0",
         "--set", "train.schedule=constant", "--set", "train.keep_checkpoints=1")  # fmt: skip


def losses(run: Path = Path("runs/nano")) -> dict[int, float]:
    """Of each validation, by step."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {event["step"]: event["val_loss"] for event in events if event["event"] == "validation"}


def steps() -> set[int]:
    return {checkpoint_files.step_of(path) for path in Path("runs/nano/checkpoints").iterdir()}


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_newest_and_the_best(best: int, nano: Path, tinytale: Callable) -> None:
    """The best of all validations, though no save was due then."""
    assert tinytale("train", nano, *WORSE, "--set", f"train.keep_best={best}", "--set", "train.save_every=12").code == 0
    found = losses()
    assert min(found, key=lambda step: found[step]) not in (12, 10)  # it did get worse
    records = [step for step in found if found[step] == min(found[one] for one in found if one <= step)]
    assert (
        steps() == checkpoint_files.kept_steps({step: found[step] for step in {*records, 12}}, 1, best)
        if best
        else {12}
    )


@pytest.mark.parametrize("average", [(), ("--set", "train.ema=0.5")], ids=["weights", "averages"])
def test_the_model_has_the_best_weights(average: tuple, nano: Path, tinytale: Callable) -> None:
    options = (*WORSE, *average, "--set", "train.final_model=best", "--json")
    result = tinytale("train", nano, *options)
    assert result.code == 0, result.err
    found = losses()
    best = min(found, key=lambda step: found[step])
    assert best < 12
    assert result.json["val_loss"] == found[best] < found[12]
    file = "average" if average else "model"
    saved, model = (
        mx.load(str(path))
        for path in (
            Path(f"runs/nano/checkpoints/step-{best:06d}/{file}.safetensors"),
            Path("runs/nano/model/model.safetensors"),
        )
    )
    assert isinstance(saved, dict)
    assert isinstance(model, dict)
    assert all(np.array_equal(model[name], array) for name, array in saved.items() if name in model)
    assert len(set(model) & set(saved)) > 5
    again = tinytale("train", "--resume")  # nothing left to do, and the same model
    assert f"the model gets the weights of step {best}, whose validation loss is the lowest" in again.out
    assert f"\nvalidation loss {found[best]:.3f}" in again.out


def test_without_a_wish_it_has_the_last(nano: Path, tinytale: Callable) -> None:
    assert tinytale("train", nano, *WORSE, "--json").json["val_loss"] == losses()[12]
