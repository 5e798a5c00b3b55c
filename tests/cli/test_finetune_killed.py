"""A fine-tuning that is killed, wherever and how often, ends with the bits of one that was not."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import Start, deadly, finish, wait_for

from tinytale_mlx.training import checkpoint_files

pytestmark = pytest.mark.slow

KEYS = (
    *("data.source=identity", "train.steps=12", "train.save_every=4", "train.validate_every=4", "train.batch_size=2"),
    *("train.accumulate=2", "train.schedule=cosine", "train.early_stopping=9", "train.ema=0.9", "train.log_every=1"),
)
METHODS = {
    "lora": ("tune.dropout=0.2", "tune.lora_plus_ratio=4", "data.replay=0.25"),
    "full": ("tune.method=full", "train.optimizer=muon", "train.gradient_checkpointing=block"),
}
DISK = "tinytale_mlx.disk"
# Where a process kills itself, in which call. The next one goes on with the run and dies elsewhere.
DEATHS = [
    ("tinytale_mlx.stages.finetuning", "read_examples", 1, "before it has begun"),
    ("tinytale_mlx.training.loop", "learning_rate", 3, "before the first checkpoint"),
    (DISK, "flush", 3, "during the first save"),
    ("tinytale_mlx.training.loop", "learning_rate", 3, "between two checkpoints"),
    ("tinytale_mlx.stages.finetuning", "evaluate", 1, "before a validation"),
    (DISK, "replace_folder", 1, "before the result has its name"),
]


def sums(run: Path) -> dict[str, str]:
    """SHA-256 of everything that was learned."""
    files = [*run.glob("checkpoints/step-000012/*.safetensors"), *run.glob("[am]*e[rl]/*.safetensors")]
    assert len(files) == 4  # weights, state of the optimiser, average; the result
    return {f"{file.parent.name}/{file.name}": checkpoint_files.checksum(file) for file in files}


@pytest.fixture(params=METHODS)
def tune(request: pytest.FixtureRequest, base: Path) -> list[Any]:
    """The command that fine-tunes the base by a method, in a folder of its own."""
    keys = [*KEYS, *METHODS[request.param]]
    return ["finetune", "base", *(word for key in keys for word in ("--set", key)), "--json"]


def check(base: Path, expected: dict[str, str]) -> None:
    run = base / "runs" / "cut"
    assert not list(run.rglob("*.tmp"))
    assert sums(run) == expected


def whole(tune: list[Any], base: Path, tinytale: Callable[..., Any]) -> dict[str, str]:
    said = tinytale(*tune, "--name", "whole")
    assert said.code == 0, said.err
    return sums(base / "runs" / "whole")


def test_killed_again_and_again(tune: list[Any], base: Path, start: Start, tinytale: Callable[..., Any]) -> None:
    expected = whole(tune, base, tinytale)
    command = [*tune, "--name", "cut"]
    for module, name, call, when in DEATHS:
        process = start(*command, cwd=base, before=deadly(module, name, call))
        said = finish(process)
        assert process.returncode == -signal.SIGKILL, f"{when}: {said}"
        command = ["finetune", "--resume", "--name", "cut", "--json"]
    process = start(*command, cwd=base)
    assert process.wait(120) == 0, finish(process)
    check(base, expected)


def test_killed_at_random_moments(tune: list[Any], base: Path, start: Start, tinytale: Callable[..., Any]) -> None:
    expected, dice = whole(tune, base, tinytale), random.Random(0)
    slow = "import time, tinytale_mlx.training.loop as l; r = l.learning_rate\n"
    slow += "l.learning_rate = lambda *a: (time.sleep(0.1), r(*a))[1]"
    process = start(*tune, "--name", "cut", cwd=base, before=slow)
    for _ in range(3):
        wait_for(process, "trained|parameters")
        time.sleep(dice.random())
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
        process = start("finetune", "--resume", "--name", "cut", "--json", cwd=base, before=slow)
    said = finish(process)
    assert process.returncode == 0, said
    check(base, expected)
