"""What does each memory switch save, what does it cost, and does it change the gradients?

    tinytale bench memory                       # 13.8M parameters, 8 x 256 tokens
    tinytale bench memory --shape 51m --rounds 0

Every row is a process of its own, whose second step is measured: MLX's count of bytes at the peak, which is the same
on every run but for what MLX hands out ahead of time, and the gradients, compared with the plain step's element by
element. With `--rounds`, all rows then take turns in one process, which gives CPU seconds relative to the plain step.

The limit is MLX's memory limit. Without one, MLX hands out memory for a hundred operations ahead of the one that is
being computed; near a limit it waits instead. On a Mac `device.configure` sets it to the GPU's working set.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from tinytale_mlx import device, recipe_files
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import Recipe
from tinytale_mlx.training.step import StepResult

from . import steps
from .apart import Figures, call, excused
from .results import Column, Report, Table
from .runner import main


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


EVERY = {**ROWS, **OTHER_MATHEMATICS}
QUICK = {
    "shape": "small",
    "rounds": 2,
    "only": ["loss in chunks of 256 tokens", "every block again", "one row at a time", "blocks, chunks, one row",
             "8-bit moments"],
}  # fmt: skip


class SwitchedStep:
    """A training step with some switches on."""

    def __init__(self, shape: Shape, switches: list[str]):
        self.recipe = recipe_of(shape, switches)
        self.rows = 1 if "rows=1" in switches else shape.rows
        self.limit = shape.limit << 20 if "limit" in switches else device.limits().memory
        before = mx.get_active_memory()
        self.step = steps.step_of(self.recipe)
        self.own = mx.get_active_memory() - before

    def __call__(self, number: int) -> StepResult:
        [(tokens, weights)] = steps.random_batches(self.recipe, number)
        pieces = [slice(first, first + self.rows) for first in range(0, len(tokens), self.rows)]
        mx.set_memory_limit(self.limit + mx.get_active_memory() - self.own)  # other rows' models are no part of it
        return self.step([(tokens[p], weights[p]) for p in pieces], 1e-3, mx.random.key(number))


def recipe_of(shape: Shape, switches: list[str]) -> Recipe:
    sets = [one for one in switches if one.startswith("train.")]
    return recipe_files.load("tiny-tale", [*shape.model, "train.accumulate=1", f"train.batch_size={shape.rows}", *sets])


def work(shape_name: str, name: str, file: str) -> Figures:
    """One row, in this process: its figures; the gradients of the first step go to the file."""
    row = SwitchedStep(SHAPES[shape_name], EVERY[name])
    update = row.step._update

    def keep(gradients: dict[str, mx.array], *rest: float) -> None:
        mx.save_safetensors(file, {name: g.astype(mx.float32) for name, g in gradients.items()})
        update(gradients, *rest)

    row.step._update = keep  # type: ignore[assignment]
    row(0)
    row.step._update = update
    there = mx.get_active_memory()
    mx.reset_peak_memory()
    row(1)
    return {"peak": mx.get_peak_memory(), "before": there}


def difference(ours: Path, plain: Path) -> float:
    """The largest of any element, relative to the largest element of its array."""
    a, b = mx.load(str(ours)), mx.load(str(plain))
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    assert a.keys() == b.keys()
    return max(float(mx.abs(a[name] - b[name]).max() / mx.abs(b[name]).max()) for name in b)


def add_cpu_time(shape: Shape, table: Table, rounds: int) -> None:
    """CPU seconds of a step relative to the plain one's, round by round; all take turns in this process."""
    rows = [row for row in table.rows if row.key[0] in ROWS and not row.missing]
    each = [(row, SwitchedStep(shape, ROWS[str(row.key[0])])) for row in rows]
    for number in range(rounds + 1):
        seconds = []
        for _, step in each:
            started = time.process_time()
            step(number)
            seconds.append(time.process_time() - started)
        if number:  # the first compiles
            for (row, _), spent in zip(each, seconds, strict=True):
                row.add(CPU_time=spent / seconds[0])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", choices=SHAPES, default="14m")
    parser.add_argument("--rounds", type=int, default=3, help="for CPU time; 0 for none")
    parser.add_argument("--only", nargs="*", metavar="ROW", help="rows to measure beside the plain one, by name")


def measure(given: argparse.Namespace, report: Report) -> None:
    shape = SHAPES[given.shape]
    wanted = list(EVERY) if given.only is None else ["plain", *given.only]
    if unknown := sorted(set(wanted) - set(EVERY)):
        raise UserError(f"there is no row {unknown[0]!r}; there are {', '.join(map(repr, EVERY))}")
    table = report.table(
        f"Memory switches, {given.shape}, {shape.rows} x {recipe_of(shape, []).model.context} tokens",
        ["switches"],
        [
            Column("peak", "bytes", "lower"),
            Column("of plain", "share", "lower"),
            Column("CPU time", "x", "lower"),
            Column("gradients differ by", "", "lower"),
        ],
        ["gradients: the largest difference of any element, beside the largest element of its array; where there is "
         "none, the mathematics is another"],
    )  # fmt: skip
    bars = report.plot(table.title, Column("switches"), Column("peak", "bytes", "lower"), "bar").line("peak")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.safetensors")
        for name in [name for name in EVERY if name in wanted]:
            row, file = table.row(name), plain if name == "plain" else Path(folder, "row.safetensors")
            with excused(row):
                alone = ["train.batch_size=1"] if "rows=1" in EVERY[name] else []
                steps.forecast_memory(recipe_of(shape, [*EVERY[name], *alone]))
                found = call(work, given.shape, name, str(file))
                first = table.rows[0].cells.get("peak", found["peak"])
                row.set(peak=found["peak"], of_plain=found["peak"] / first)
                bars.add(name, found["peak"])
                if name in ROWS and plain.exists():
                    row.set(gradients_differ_by=difference(file, plain))
    if not table.rows[0].missing:
        add_cpu_time(shape, table, given.rounds)


if __name__ == "__main__":
    main("memory")
