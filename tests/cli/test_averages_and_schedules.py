"""Runs whose batch grows, whose weights are averaged, and with every optimiser: whole, and resumed."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

STEPS = ("--steps", "8", "--set", "train.save_every=4", "--set", "train.validate_every=8")


def sums(run: str) -> dict[str, str]:
    files = sorted(Path("runs", run).glob("checkpoints/step-000008/*.safetensors"))
    files.append(Path("runs", run, "model", "model.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(
    "change",
    [
        "train.ema=0.9",
        "train.average_last=0.5",
        "train.accumulate_schedule={2: 1, 5: 3}",
        "train.optimizer=adafactor",
        "train.optimizer=lion",
        "train.optimizer=adam_mini",
        "train.optimizer_state=int8",
        "train.schedule=wsd",
    ],
)
def test_resumed_to_the_last_bit(change: str, nano: Path, tinytale: Callable) -> None:
    whole = tinytale("train", nano, "--set", change, *STEPS, "--name", "whole", "--json")
    assert whole.code == 0, whole.err
    expected = sums("whole")
    shutil.rmtree("runs/whole/checkpoints/step-000008")
    shutil.rmtree("runs/whole/model")
    resumed = tinytale("train", "--resume", "--name", "whole", "--json")
    assert resumed.code == 0, resumed.err
    assert sums("whole") == expected
    assert resumed.json["val_loss"] == whole.json["val_loss"]


def test_the_model_is_the_average(nano: Path, tinytale: Callable) -> None:
    result = tinytale("train", nano, "--set", "train.average_last=0.5", *STEPS, "--json")
    weights = {name: mx.load(f"runs/nano/checkpoints/step-000008/{name}.safetensors") for name in ("model", "average")}
    saved = mx.load("runs/nano/model/model.safetensors")
    for name, array in weights["average"].items():
        if name in saved:  # the layout has other names for some
            assert np.array_equal(saved[name], array)
    assert any(not np.array_equal(weights["model"][name], array) for name, array in weights["average"].items())
    assert tinytale("eval", "nano", "--json").json["loss"] == pytest.approx(result.json["val_loss"], rel=0.3)
    finished = tinytale("generate", "--temperature", "0", "-m", "8").out
    shutil.rmtree("runs/nano/model")  # as if training went on: the newest checkpoint is read
    assert tinytale("generate", "--temperature", "0", "-m", "8").out == finished


def test_before_anything_is_averaged_it_is_the_weights(nano: Path, tinytale: Callable) -> None:
    assert tinytale("train", nano, "--set", "train.average_last=0.5", *STEPS).code == 0
    for step, equal in ((4, True), (8, False)):
        model, average = (
            mx.load(f"runs/nano/checkpoints/step-00000{step}/{name}.safetensors") for name in ("model", "average")
        )
        assert all(np.array_equal(model[name], array) for name, array in average.items()) == equal


def test_the_batch_grows(nano: Path, tinytale: Callable) -> None:
    result = tinytale("train", nano, "--set", "train.accumulate_schedule={2: 1, 5: 3}", *STEPS, "--json")
    micro_batches = 2 * 2 + 3 * 1 + 3 * 3  # the recipe accumulates 2
    assert result.json["tokens"] == micro_batches * 4 * 32
    steps = [event for event in map(json.loads, Path("runs/nano/log.jsonl").read_text().splitlines())
             if event["event"] == "step"]  # fmt: skip
    assert np.diff([0, *(event["tokens"] for event in steps)]).tolist() == [256, 256, 128, 128, 128, 384, 384, 384]
