"""An alignment that is killed, of whatever kind, ends with the bits of one that was not."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import Start, deadly, finish
from preferring import SMALL, rows, write_rows

from tinytale_mlx.training import checkpoint_files

pytestmark = pytest.mark.slow

COMMANDS = {
    "reward": ["reward", "--steps", "6", "--batch-size", "8"],
    "dpo": ["dpo", "--steps", "6", "--batch-size", "8", "--full"],
    "kto": ["dpo", "--method", "kto", "--steps", "6", "--batch-size", "8"],
    "ppo": ["ppo", "--steps", "6", "--batch-size", "8", "--set", "ppo.minibatches=2", "--reward", "length:4"],
    "shared": ["ppo", "--steps", "6", "--batch-size", "8", "--set", "ppo.critic=shared", "--reward", "length:4"],
    "grpo": ["grpo", "--steps", "6", "--batch-size", "4", "--group-size", "2", "--full", "--reward", "length:4"],
}
LOOP, DISK = "tinytale_mlx.training.loop", "tinytale_mlx.disk"


def sums(run: Path) -> dict[str, str]:
    """SHA-256 of everything that was learned."""
    files = [*run.glob("checkpoints/step-000006/*.safetensors"), *run.glob("[amr]*[elr]*/*.safetensors")]
    assert len(files) == 3  # weights and state of the optimiser; the result
    return {f"{file.parent.name}/{file.name}": checkpoint_files.checksum(file) for file in files}


@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_and_resumed(kind: str, base: Path, start: Start, tinytale: Callable[..., Any]):
    write_rows(base / "pairs.jsonl", rows())
    often = ["--set", "train.save_every=2", "--set", "train.validate_every=3", "--json"]
    command = ["rlhf", COMMANDS[kind][0], "base", *COMMANDS[kind][1:], *SMALL, *often]
    assert tinytale(*command, "--name", "whole").code == 0
    command += ["--name", "cut"]
    for death in (deadly(LOOP, "learning_rate", 4), deadly(DISK, "flush", 3)):
        process = start(*command, cwd=base, before=death)
        said = finish(process)
        assert process.returncode == -signal.SIGKILL, said
        command = ["rlhf", COMMANDS[kind][0], "--resume", "--name", "cut", "--json"]
    assert tinytale(*command).code == 0
    assert sums(base / "runs/cut") == sums(base / "runs/whole")
