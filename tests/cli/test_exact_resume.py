"""Every switch of the training: a run that was interrupted ends with the bits of one that was not.

Compiled, with dropout. Optimisers, schedules and averages are in `test_averages_and_schedules.py`; kills and signals
in `test_resume.py`; what is killed in the middle of a save, many times, in `benchmarks/soak.py`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx.training import checkpoint_files

STEPS = ("--steps", "8", "--set", "train.save_every=4", "--set", "train.validate_every=4")
EVERYTHING = (
    *("train.precision=float16", "train.loss_scale_window=2", "train.gradient_checkpointing=block"),
    *("train.loss_chunk_tokens=48", "train.accumulate_schedule={2: 1, 5: 3}", "train.ema=0.9"),
    *("train.optimizer_state=int8", "train.schedule=wsd", "train.early_stopping=5", "train.final_model=best"),
)


def sums(run: str) -> dict[str, str]:
    """SHA-256 of everything that was learned; not of state.json, which says how long it took."""
    newest = checkpoint_files.all_checkpoints(Path("runs", run, "checkpoints"))[-1]
    files = [*newest.glob("*.safetensors"), Path("runs", run, "model", "model.safetensors")]
    return {f"{file.parent.name}/{file.name}": checkpoint_files.checksum(file) for file in files}


def state(run: str) -> dict[str, Any]:
    """What the newest checkpoint remembers, but for times."""
    newest = checkpoint_files.all_checkpoints(Path("runs", run, "checkpoints"))[-1]
    content = json.loads((newest / "state.json").read_text())
    content["progress"] = {name: value for name, value in content["progress"].items() if "time" not in name}
    del content["progress"]["seconds"]
    return content


def options(changes: tuple[str, ...]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.parametrize(
    "changes",
    [
        ("train.precision=bfloat16",),
        ("train.precision=float16", "train.loss_scale_window=3"),
        ("train.gradient_checkpointing=block",),
        ("train.gradient_checkpointing=attention", "train.gradient_checkpointing_every=2"),
        ("train.loss_chunk_tokens=48",),
        ("train.max_grad_norm=null",),
        ("data.rows=packed", "data.document_mask=true"),
        ("data.store=false",),
    ],
    ids=lambda changes: changes[0],
)
def test_to_the_last_bit(changes: tuple[str, ...], nano: Path, tinytale: Callable) -> None:
    whole = tinytale("train", nano, *STEPS, *options(changes), "--json")
    assert whole.code == 0, whole.err
    expected, remembered = sums("nano"), state("nano")
    shutil.rmtree("runs/nano/checkpoints/step-000008")
    shutil.rmtree("runs/nano/model")
    resumed = tinytale("train", "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert sums("nano") == expected
    assert state("nano") == remembered
    assert resumed.json["val_loss"] == whole.json["val_loss"]


def test_the_loss_scale_goes_on(nano: Path, tinytale: Callable) -> None:
    """It has been doubled, and is not what the recipe began with."""
    changes = ("train.precision=float16", "train.loss_scale=64", "train.loss_scale_window=3")
    assert tinytale("train", nano, *STEPS, *options(changes)).code == 0
    assert state("nano")["loss_scale"] == {"value": 256.0, "good_steps": 2}
    shutil.rmtree("runs/nano/checkpoints/step-000008")
    assert tinytale("train", "--resume").code == 0
    assert state("nano")["loss_scale"] == {"value": 256.0, "good_steps": 2}


def test_patience_goes_on(nano: Path, tinytale: Callable) -> None:
    """A rate that makes everything worse: it stops at the same step, interrupted or not."""
    worse = ("train.learning_rate=3.0", "train.early_stopping=2", "train.validate_every=2", "train.save_every=1")
    keep = ("train.keep_checkpoints=99", "train.schedule=constant")
    whole = tinytale("train", nano, *options((*worse, *keep)), "--steps", "20", "--json")
    assert whole.code == 0, whole.err
    stopped = whole.json["steps"]
    assert stopped < 20
    expected, remembered = sums("nano"), state("nano")
    assert remembered["progress"]["validations_without_progress"] == 2
    shutil.rmtree(f"runs/nano/checkpoints/step-{stopped:06d}")
    resumed = tinytale("train", "--resume", "--json")
    assert resumed.json["steps"] == stopped
    assert (sums("nano"), state("nano")) == (expected, remembered)


@pytest.mark.slow
def test_everything_in_two_processes(nano: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """Stopped by a signal at whatever step that hits, and gone on with in another process."""
    train = ["train", nano, *STEPS, *options(EVERYTHING)]
    said = start(*train, "--name", "whole", cwd=nano.parent).communicate(timeout=120)[0]
    assert Path("runs/whole/model").is_dir(), said
    slow = "import time, tinytale_mlx.training.loop as l; r = l.learning_rate\n"
    slow += "l.learning_rate = lambda *a: (time.sleep(0.1), r(*a))[1]"
    process = start(*train, "--name", "cut", cwd=nano.parent, before=slow)
    assert process.stdout
    said = ""
    while not re.search(r"step +3 ", said) and (line := process.stdout.readline()):
        said += line
    os.kill(process.pid, signal.SIGTERM)
    said += process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signal.SIGTERM, said
    said = start("train", "--resume", "--name", "cut", cwd=nano.parent).communicate(timeout=120)[0]
    assert "going on from step" in said
    assert sums("cut") == sums("whole")
    assert state("cut") == state("whole")
