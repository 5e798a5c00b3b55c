"""Does anything get lost when a training is killed again and again, mostly in the middle of a save?

    tinytale bench soak --kills 200

A tiny run saves after every step. It is killed (SIGKILL, which nothing can catch) at random moments, three times out of
four at one during a save, and resumed, until it is done; then the next one begins. After every kill each checkpoint
must be whole and none may be older than what was there before; at its end each run must have the weights, the
optimiser's state and the model of one that nobody killed, to the last bit.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tinytale_mlx.training import checkpoint_files
from tinytale_mlx.training.checkpoint_files import all_checkpoints, step_of, verify

from .results import Column, Report, Row
from .runner import main

RECIPE = """
name: soak
data: {source: tales, documents: 200, validation: 0.05}
tokenizer: {kind: bpe, vocab_size: 400}
model: {hidden_size: 64, layers: 2, heads: 2, intermediate_size: 128, context: 32, residual_dropout: 0.1}
train: {steps: 40, batch_size: 4, optimizer: muon, learning_rate: 3e-3, ema: 0.9, save_every: 1, keep_checkpoints: 2,
        validate_every: 5, validation_batches: 1, sample_every: 1000}
generate: {max_new_tokens: 4}
"""
SAVES_A_LIFE = 6
"""At most; a process that is to die during a save does so in one of its first ones."""
SECONDS_A_LIFE = 3.0
"""At most; one that is to die at any moment does so in the first ones."""
PLACES = ("while deleting", "during a save", "elsewhere")
COUNTED = ("kills", *PLACES, "runs finished")
QUICK = {"kills": 3}
PATIENCE = 120.0
"""Seconds after which a process that does nothing is a failure."""


class Lost(AssertionError):
    """Something that a kill must not do."""


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tinytale_mlx.cli.app", "train", *arguments]
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)


def half_written(run: Path) -> list[str]:
    """What lies in the folder of checkpoints that is not yet, or no longer, a whole one."""
    try:
        return [name for name in os.listdir(run / "checkpoints") if name.endswith(".tmp")]
    except FileNotFoundError:
        return []


def wait_for_save(process: subprocess.Popen[bytes], run: Path) -> bool:
    """Until one begins; False where the process ends before."""
    deadline = time.monotonic() + PATIENCE
    while half_written(run):  # the one that is going on
        time.sleep(0.0002)
    while not half_written(run):
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise Lost(f"nothing was saved in {PATIENCE:.0f} seconds")
        time.sleep(0.0002)
    return True


def kill_sometime(process: subprocess.Popen[bytes], run: Path, dice: random.Random, save_seconds: float) -> bool:
    """False where the process was done before."""
    if dice.random() < 0.75:
        for _ in range(dice.randrange(SAVES_A_LIFE) + 1):
            if not wait_for_save(process, run):
                return False
        time.sleep(dice.random() * save_seconds * 1.5)
    else:
        time.sleep(dice.random() * SECONDS_A_LIFE)
    process.kill()
    return process.wait() != 0


def check_whole(run: Path, newest_before: int) -> int:
    """The step of the newest checkpoint, if all are whole and it is no older than the newest before."""
    saved = all_checkpoints(run / "checkpoints")
    for path in saved:
        verify(path)
    newest = step_of(saved[-1]) if saved else -1
    if newest < newest_before:
        raise Lost(f"there was a checkpoint of step {newest_before}, and the newest is now that of step {newest}")
    return newest


def learned(run: Path) -> dict[str, str]:
    """SHA-256 of all that was learned."""
    files = [*all_checkpoints(run / "checkpoints")[-1].glob("*.safetensors"), run / "model" / "model.safetensors"]
    return {f"{file.parent.name}/{file.name}": checkpoint_files.checksum(file) for file in sorted(files)}


def reference(folder: Path) -> float:
    """Train the run `whole`, which nobody kills: the seconds that a save takes, in the middle of all."""
    process, run, seconds = start(folder, "soak.yaml", "--name", "whole"), folder / "runs" / "whole", []
    while wait_for_save(process, run):
        began = time.perf_counter()
        while half_written(run):
            time.sleep(0.0002)
        seconds.append(time.perf_counter() - began)
    if process.wait() != 0:
        raise Lost((folder / "output.txt").read_text())
    return sorted(seconds)[len(seconds) // 2]


def where(run: Path) -> str:
    names = half_written(run)
    if any(name.endswith(".old.tmp") for name in names):
        return PLACES[0]
    return PLACES[1] if names else PLACES[2]


def soak(folder: Path, kills: int, dice: random.Random, save_seconds: float, row: Row) -> None:
    """Kill that many times, counting in the row. Raises Lost, or checkpoint_files.Damaged, at what goes wrong first."""
    expected = learned(folder / "runs" / "whole")
    counts: dict[str, Any] = dict.fromkeys(COUNTED, 0)
    while counts["kills"] < kills:
        name = f"run-{counts['runs finished']}"
        run, newest = folder / "runs" / name, -1
        while True:
            again = ["--resume"] if (run / "recipe.yaml").exists() else ["soak.yaml"]
            process = start(folder, *again, "--name", name)
            if not kill_sometime(process, run, dice, save_seconds):
                break
            counts["kills"] += 1
            counts[where(run)] += 1
            newest = check_whole(run, newest)
            row.set(**counts)
        if process.wait() != 0:
            raise Lost(f"{name} stopped with {process.returncode}: {(folder / 'output.txt').read_text()}")
        if learned(run) != expected:
            raise Lost(f"{name} has learned something else than the run that nobody killed")
        if left := list(run.rglob("*.tmp")):
            raise Lost(f"{name} has left {left}")
        counts["runs finished"] += 1
        row.set(**counts)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="Of the moments; what they hit differs all the same.")


def measure(given: argparse.Namespace, report: Report) -> None:
    columns = [Column(name) for name in COUNTED]
    table = report.table("Killed and resumed", ["run"], [*columns, Column("lost", "", "lower")])
    row = table.row("saves after every step")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "soak.yaml").write_text(RECIPE)
        save_seconds = reference(Path(folder))
        table.notes.append(f"a save took about {save_seconds * 1000:.1f} ms")
        row.set(lost=1)
        soak(Path(folder), given.kills, random.Random(given.seed), save_seconds, row)
        row.set(lost=0)


if __name__ == "__main__":
    main("soak")
