"""What does each memory switch save, what does it cost, and does it change the gradients?

    python -m tinytale_mlx.benchmarks.memory                       # 13.8M parameters, 8 x 256 tokens
    python -m tinytale_mlx.benchmarks.memory --shape 51m --rounds 0

Every row is a process of its own, whose second step is measured: MLX's count of bytes at the peak, which is the same
on every run but for what MLX hands out ahead of time, and the gradients, compared with the plain step's element by
element. With `--rounds`, all rows then take turns in one process, which gives CPU seconds relative to the plain step.

The limit is MLX's memory limit. Without one, MLX hands out memory for a hundred operations ahead of the one that is
being computed; near a limit it waits instead. On a Mac `device.configure` sets it to the GPU's working set.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tinytale_mlx import device, recipe_files, stages
from tinytale_mlx.recipe import Recipe
from tinytale_mlx.training.losses import token_loss
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.step import Step, StepResult

from .machine import facts


@dataclass(frozen=True)
class Shape:
    model: list[str]
    rows: int
    limit: int
    """Of memory, in MB, with all switches on: a little more than what must be there."""


SHAPES = {
    "14m": Shape(["model.intermediate_size=1024"], 8, 350),
    "51m": Shape(
        [
            *("model.hidden_size=512", "model.layers=8", "model.heads=8", "model.intermediate_size=1408"),
            *("model.context=512", "tokenizer.vocab_size=50257"),
        ],
        8,
        1350,
    ),
    "small": Shape(
        [
            *("model.hidden_size=64", "model.layers=4", "model.heads=4", "model.intermediate_size=128"),
            *("model.context=64", "tokenizer.vocab_size=512"),
        ],
        8,
        10,
    ),
}
BLOCK, CHUNKS = "train.gradient_checkpointing=block", "train.loss_chunk_tokens=256"
ROWS: dict[str, list[str]] = {
    "plain": [],
    "loss in chunks of 256 tokens": [CHUNKS],
    "attention computed again": ["train.gradient_checkpointing=attention"],
    "every second block again": [BLOCK, "train.gradient_checkpointing_every=2"],
    "every block again": [BLOCK],
    "one row at a time": ["rows=1"],
    "memory limit": ["limit"],
    "blocks and chunks": [BLOCK, CHUNKS],
    "blocks, chunks, one row": [BLOCK, CHUNKS, "rows=1"],
    "blocks, chunks, limit": [BLOCK, CHUNKS, "limit"],
}
OTHER_MATHEMATICS: dict[str, list[str]] = {
    "bfloat16, float32 masters": ["train.precision=bfloat16"],
    "8-bit moments": ["train.optimizer_state=int8"],
    "Lion": ["train.optimizer=lion"],
    "Adafactor": ["train.optimizer=adafactor"],
}


class Row:
    """A training step with some switches on."""

    def __init__(self, shape: Shape, switches: list[str]):
        sets = [one for one in switches if one.startswith("train.")]
        self.recipe: Recipe = recipe_files.load("tiny-tale", [*shape.model, "train.accumulate=1", *sets])
        self.rows = 1 if "rows=1" in switches else shape.rows
        self.limit = shape.limit << 20 if "limit" in switches else device.limits().memory
        train = self.recipe.train
        before = mx.get_active_memory()
        model = stages.blueprint(self.recipe)
        model.recompute(train.gradient_checkpointing, train.gradient_checkpointing_every)
        loss = partial(token_loss, chunk_tokens=train.loss_chunk_tokens)
        self.step = Step(model, make_optimizer(train), train.max_grad_norm, loss, train.precision)
        mx.eval(model.parameters(), self.step.optimizer.state)
        self.own = mx.get_active_memory() - before
        self.size = (shape.rows, self.recipe.model.context + 1)

    def __call__(self, number: int) -> StepResult:
        dice = np.random.default_rng(number)
        tokens = dice.integers(0, self.recipe.tokenizer.vocab_size, self.size).astype(np.int32)
        weights = np.ones((self.size[0], self.size[1] - 1), np.float32)
        pieces = [slice(first, first + self.rows) for first in range(0, len(tokens), self.rows)]
        mx.set_memory_limit(self.limit + mx.get_active_memory() - self.own)  # other rows' models are no part of it
        return self.step([(tokens[p], weights[p]) for p in pieces], 1e-3, mx.random.key(number))


def work(shape: Shape, switches: list[str], file: Path) -> dict[str, Any]:
    """One row: its figures; the gradients of the first step go to the file."""
    row = Row(shape, switches)
    update = row.step._update

    def keep(gradients: dict[str, mx.array], *rest: float) -> None:
        mx.save_safetensors(str(file), {name: g.astype(mx.float32) for name, g in gradients.items()})
        update(gradients, *rest)

    row.step._update = keep  # type: ignore[assignment]
    row(0)
    row.step._update = update
    there = mx.get_active_memory()
    mx.reset_peak_memory()
    started = time.process_time()
    row(1)
    return {"peak_mb": mx.get_peak_memory() / 1e6, "before_mb": there / 1e6, "cpu": time.process_time() - started}


def measured(shape_name: str, name: str, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tinytale_mlx.benchmarks.memory", "--shape", shape_name, "--worker", name]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=True)
    return {"switches": name, **json.loads(done.stdout)}


def difference(ours: Path, plain: Path) -> float:
    """The largest of any element, relative to the largest element of its array."""
    a, b = mx.load(str(ours)), mx.load(str(plain))
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    assert a.keys() == b.keys()
    return max(float(mx.abs(a[name] - b[name]).max() / mx.abs(b[name]).max()) for name in b)


def cpu_ratios(shape: Shape, names: list[str], rounds: int) -> dict[str, float]:
    """CPU seconds of a step relative to the plain one's: medians over rounds in which all take turns."""
    rows = {name: Row(shape, ROWS[name]) for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        seconds = {}
        for name, row in rows.items():
            started = time.process_time()
            row(number)
            seconds[name] = time.process_time() - started
        if number:  # the first compiles
            for name in rows:
                ratios[name].append(seconds[name] / seconds["plain"])
    return {name: statistics.median(values) for name, values in ratios.items()}


def measure(shape_name: str, names: list[str], rounds: int) -> list[dict[str, Any]]:
    table = []
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.safetensors")
        for name in names:
            file = plain if name == "plain" else Path(folder, "row.safetensors")
            row = measured(shape_name, name, file)
            if name in ROWS:
                row["gradients_apart"] = difference(file, plain)
            table.append(row)
    ratios = cpu_ratios(SHAPES[shape_name], [name for name in names if name in ROWS], rounds) if rounds else {}
    for row in table:
        row["of_plain"] = row["peak_mb"] / table[0]["peak_mb"]
        row["cpu_ratio"] = ratios.get(row["switches"])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="14m")
    parser.add_argument("--rounds", type=int, default=3, help="for CPU time; 0 for none")
    parser.add_argument("--only", nargs="*", help="rows to measure beside the plain one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=2, metavar=("ROW", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    device.configure()
    if options.worker:
        name, file = options.worker
        switches = {**ROWS, **OTHER_MATHEMATICS}[name]
        print(json.dumps(work(SHAPES[options.shape], switches, Path(file))))
        return
    every = [*ROWS, *OTHER_MATHEMATICS]
    names = every if options.only is None else [name for name in every if name in ["plain", *options.only]]
    table = measure(options.shape, names, options.rounds)
    if options.json:
        print(json.dumps({"machine": facts(), "shape": options.shape, "rows": table}))
        return
    print(f"{'':30} {'peak MB':>9} {'of plain':>9} {'CPU time':>9} {'gradients differ by':>20}")
    for row in table:
        ratio = f"{row['cpu_ratio']:8.2f}x" if row["cpu_ratio"] else ""
        apart = f"{row['gradients_apart']:.0e}" if "gradients_apart" in row else "other mathematics"
        print(f"{row['switches']:30} {row['peak_mb']:9,.0f} {row['of_plain']:9.0%} {ratio:>9} {apart:>20}")


if __name__ == "__main__":
    main()
