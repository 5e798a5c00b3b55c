"""Weights handed over to another training: whose they may be, and that nothing else comes with them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.recipe_files import load
from tinytale_mlx.training import checkpoint_files

SHORT = ("--steps", "4", "--set", "train.save_every=2", "--set", "train.keep_checkpoints=9")


@pytest.fixture
def source(finished: tuple[Path, object], nano: Path) -> Path:
    """The finished run `nano`, in another folder than the current one."""
    return finished[0] / "runs" / "nano"


def weights(path: Path) -> dict[str, np.ndarray]:
    return arrays(path / "model.safetensors")


def arrays(file: Path) -> dict[str, np.ndarray]:
    found = mx.load(str(file))
    assert isinstance(found, dict)
    return {name: np.array(array) for name, array in found.items()}


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("of", ["", "model"], ids=["run", "model directory"])
def test_weights_and_tokenizer(of: str, source: Path, nano: Path, tinytale: Callable) -> None:
    """Whatever optimiser and data the new recipe has; and that optimiser is a fresh one."""
    Path("book.txt").write_text("The cat went home.\n\nThe dog stayed there all day long.\n\n" * 200)
    change = ["--data", "book.txt", "--set", "train.optimizer=lion", "--set", "tokenizer.vocab_size=300"]
    result = tinytale("train", nano, *SHORT, *change, "--init-from", source / of, "--json")
    assert result.code == 0, result.err
    assert result.json["steps"] == 4
    first = Path("runs/nano/checkpoints/step-000000")
    assert same(weights(first), weights(source / "checkpoints/step-000024"))
    moments = arrays(first / "optimizer.safetensors")
    assert not any(np.any(array) for name, array in moments.items() if "layers" in name)
    theirs, own = (folder / "data/tokenizer/tokenizer.json" for folder in (source, Path("runs/nano")))
    assert own.read_text() == theirs.read_text()
    assert not Path("runs/.cache/tokenizers").exists()
    events = [json.loads(line) for line in Path("runs/nano/log.jsonl").read_text().splitlines()]
    assert [event["from"] for event in events if event["event"] == "init"] == [
        str(source / of if of else source / "model")
    ]


def test_it_has_learned_something_already(source: Path, nano: Path, tinytale: Callable) -> None:
    assert tinytale("train", nano, *SHORT, "--init-from", source, "--learning-rate", "1e-6", "--json").code == 0
    last = json.loads((source / "log.jsonl").read_text().splitlines()[-1])
    own = json.loads(Path("runs/nano/log.jsonl").read_text().splitlines()[-1])
    assert own["val_loss"] == pytest.approx(last["val_loss"], abs=0.01)  # on the same text


def test_resumed_it_is_the_same(source: Path, nano: Path, tinytale: Callable) -> None:
    """Even when it was killed right after it had begun."""
    assert tinytale("train", nano, *SHORT, "--init-from", source, "--name", "whole").code == 0
    shutil.copytree("runs/whole", "runs/cut")
    for step in ("000002", "000004"):
        shutil.rmtree(f"runs/cut/checkpoints/step-{step}")
    resumed = tinytale("train", "--resume", "--name", "cut")
    assert resumed.code == 0, resumed.err
    for file in ("model.safetensors", "optimizer.safetensors"):
        first, second = (Path("runs", run, "checkpoints/step-000004", file) for run in ("whole", "cut"))
        assert checkpoint_files.checksum(first) == checkpoint_files.checksum(second)
    assert tinytale("train", nano, "--resume", "--name", "cut", *SHORT).code == 0  # the recipe is the same


def test_a_longer_context_and_other_dropout(source: Path, nano: Path, tinytale: Callable) -> None:
    change = ["--set", "model.context=48", "--set", "model.residual_dropout=0.3", "--set", "model.attention=manual"]
    result = tinytale("train", nano, *SHORT, *change, "--init-from", source)
    assert result.code == 0, result.err


def test_a_model_with_more_rows_than_tokens(nano: Path, tinytale: Callable) -> None:
    assert tinytale("train", nano, *SHORT, "--set", "model.vocab_size=520", "--name", "wide").code == 0
    result = tinytale("train", nano, *SHORT, "--init-from", "wide", "--name", "next")
    assert result.code == 0, result.err
    assert load("runs/next/recipe.yaml").model.vocab_size == 520
    shutil.rmtree("runs/next/checkpoints/step-000004")
    assert tinytale("train", "--resume", "--name", "next").code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--set", "model.hidden_size=16"], "(model.hidden_size: 32 -> 16; model.head_dim: 16 -> 8)"),
        (["--set", "model.layers=3"], "don't fit the recipe (model.layers: 2 -> 3; model.distinct_layers: 2 -> 3)"),
        (["--set", "model.qk_norm=true"], "don't fit the recipe (model.qk_norm: False -> True)"),
        (["--set", "model.vocab_size=520"], "don't fit the recipe (model.vocab_size: 512 -> 520)"),
        (["--set", "model.vocab_size=300"], "model.vocab_size 300 is below the 512 tokens of the tokenizer"),
        (["--retrain"], "the weights of --init-from go with their own tokenizer; leave out --retrain"),
        (["--resume"], "--init-from is for a new run"),
    ],
    ids=lambda value: value[-1].strip("-") if isinstance(value, list) else "",
)
def test_refused(options: list[str], told: str, source: Path, nano: Path, tinytale: Callable) -> None:
    """And nothing is left."""
    complaint = tinytale("train", nano, *SHORT, "--init-from", source, *options).complaint
    assert told in complaint
    assert not Path("runs").exists() or set(os.listdir("runs")) <= {".cache"}


def test_of_a_run_that_is_not_there(nano: Path, tinytale: Callable) -> None:
    assert "there is no run dog" in tinytale("train", nano, "--init-from", "dog").complaint
    assert not Path("runs").exists()


def test_what_fails_before_the_first_step_leaves_nothing(source: Path, nano: Path, tinytale: Callable) -> None:
    complaint = tinytale("train", nano, "--init-from", source, "--data", "none.txt").complaint
    assert "none.txt" in complaint
    assert set(os.listdir("runs")) <= {".cache"}
