"""Epochs instead of steps: counted once the data is there, and the same number ever after."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tinytale_mlx import recipe_files
from tinytale_mlx.recipe import TrainRecipe
from tinytale_mlx.training.schedules import micro_batches_before, steps_of_epochs

EPOCHS = ("--set", "train.epochs=0.1", "--set", "train.validate_every=100", "--set", "train.save_every=5")


def steps(run: str = "nano") -> int:
    return recipe_files.load(f"runs/{run}/recipe.yaml").train.steps


@pytest.mark.parametrize(
    ("rows", "train", "expected"),
    [
        (80, {"batch_size": 8, "epochs": 1.0}, 10),
        (87, {"batch_size": 8, "epochs": 1.0}, 10),
        (88, {"batch_size": 8, "epochs": 2.5}, 27),
        (80, {"batch_size": 8, "epochs": 1.0, "accumulate": 3}, 3),
        (80, {"batch_size": 8, "epochs": 1.0, "accumulate": 1, "accumulate_schedule": {2: 4}}, 4),
        (80, {"batch_size": 8, "epochs": 0.01}, 1),
        (8, {"batch_size": 8, "epochs": 1.0, "accumulate": 4}, 1),
    ],
)
def test_steps_of_epochs(rows: int, train: dict, expected: int) -> None:
    recipe = TrainRecipe(**train)
    found = steps_of_epochs(rows, recipe)
    assert found == expected
    if found > 1:  # as many whole steps as fit
        fits = [
            micro_batches_before(n, recipe) * recipe.batch_size <= rows * train["epochs"] for n in (found, found + 1)
        ]
        assert fits == [True, False]


def test_the_run_knows_its_steps(nano: Path, tinytale: Callable) -> None:
    result = tinytale("train", nano, *EPOCHS, "--json")
    assert result.code == 0, result.err
    own = recipe_files.load("runs/nano/recipe.yaml").train
    assert (own.steps, own.epochs) == (result.json["steps"], 0.1)
    events = [json.loads(line) for line in Path("runs/nano/log.jsonl").read_text().splitlines()]
    (start,) = [event for event in events if event["event"] == "start"]
    rows = start["train_tokens"] // 32
    assert own.steps == pytest.approx(0.1 * rows / 8, abs=1)  # 2 micro-batches of 4 rows


def test_resumed_it_ends_at_the_same_step(nano: Path, tinytale: Callable) -> None:
    whole = tinytale("train", nano, *EPOCHS, "--json").json
    newest = max(Path("runs/nano/checkpoints").iterdir())
    for again in (["--resume"], [nano, *EPOCHS, "--resume"]):
        shutil.rmtree(newest)
        result = tinytale("train", *again, "--json")
        assert result.code == 0, result.err
        assert (result.json["steps"], result.json["val_loss"]) == (whole["steps"], whole["val_loss"])
    said = tinytale("train", "--resume", "--set", "train.epochs=0.2").complaint
    assert "the run nano was started with another recipe (train.epochs: 0.1 -> 0.2)" in said


def test_more_epochs_of_a_constant_rate(nano: Path, tinytale: Callable) -> None:
    constant = ["--set", "train.schedule=constant"]
    assert tinytale("train", nano, *EPOCHS, *constant).code == 0
    once = steps()
    result = tinytale("train", "--resume", "--set", "train.epochs=0.2", "--json")
    assert result.code == 0, result.err
    assert steps() == result.json["steps"]
    assert abs(steps() - 2 * once) <= 1
    assert tinytale("train", "--resume", "--steps", str(2 * once + 3), "--json").json["steps"] == 2 * once + 3
    assert recipe_files.load("runs/nano/recipe.yaml").train.epochs is None


def test_the_schedule_is_checked_with_the_steps_that_these_are(nano: Path, tinytale: Callable) -> None:
    """1,000, which the recipe would otherwise have, is neither too few nor enough."""
    change = ["--set", "train.warmup_steps=2000"]
    count = tinytale("train", nano, *EPOCHS, "--json").json["steps"]
    said = tinytale("train", nano, *EPOCHS, *change, "--name", "other").complaint
    assert said == (
        f"tinytale: 0.1 epochs of this text are {count} steps: train.warmup_steps 2000 leaves no step for the cosine "
        f"schedule that ends at step {count}"
    )
    assert not Path("runs/other").exists()


def test_steps_take_the_place_of_epochs(nano: Path, tinytale: Callable) -> None:
    assert tinytale("train", nano, *EPOCHS, "--steps", "3", "--json").json["steps"] == 3


def test_of_a_mixture_and_its_limits(nano: Path, tinytale: Callable) -> None:
    """An epoch is as many rows as there are in all sources together; one that may not be shown so often says so."""
    Path("book.txt").write_text("The cat went home.\n\nThe dog stayed there all day long.\n\n" * 200)
    recipe = nano.read_text().replace(
        "{source: tales, documents: 300, validation: 0.05}",
        "{source: [{source: tales, weight: 1, documents: 100}, {source: book.txt, weight: 1, epochs: 1}]}",
    )
    nano.write_text(recipe)
    alone = tinytale("train", nano, *EPOCHS, "--json")
    assert alone.code == 0, alone.err
    assert alone.json["steps"] == steps()
    said = tinytale("train", nano, *EPOCHS, "--set", "train.epochs=20", "--name", "other").complaint
    assert "runs out in step" in said


def test_of_text_that_is_not_stored(nano: Path, tinytale: Callable) -> None:
    said = tinytale("train", nano, *EPOCHS, "--set", "data.store=false").complaint
    assert said == (
        "tinytale: train.epochs needs to know how much text there is, and with data.store: false nobody does; "
        "give train.steps instead"
    )
    assert not Path("runs/nano").exists()
