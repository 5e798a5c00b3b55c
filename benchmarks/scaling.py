"""How much faster do two processes train than one, with one thread each?

    tinytale bench scaling --recipe tiny-tale --rounds 5

One process, and two that `mlx.launch` has started on this machine, take the same steps: the recipe's global batch of
random tokens, with AdamW or whatever the recipe says. They take turns in one run and wait without work meanwhile, so a
busy machine slows both; but a machine that has no two idle cores can't show what two processes gain. For that, compare
the CPU seconds: what one process spends on a step against what the busier one of two spends.
"""

import argparse
import itertools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np

from tinytale_mlx import blas, recipe_files
from tinytale_mlx.errors import UserError
from tinytale_mlx.training.distributed import World, world
from tinytale_mlx.training.step import Gradients

from . import steps
from .apart import Figures, Worker, excused, take_turns
from .results import Column, Report
from .runner import main

WARM_UP = 2
ONE_BATCH = ["train.accumulate=1"]
QUICK = {"recipe": "tale", "rounds": 2, "steps": 1}


# ---------------------------------------------------------------------- one of the processes
class TimedSums:
    """The sums over the processes, and the seconds spent in them; to wait for the other process counts as well."""

    def __init__(self, others: World):
        self._others = others
        self.seconds = 0.0

    def __call__(self, total: Gradients) -> Gradients:
        started = time.perf_counter()
        result = self._others.all_sum(total)
        self.seconds += time.perf_counter() - started
        return result


def turns(recipe_name: str, count: int) -> Iterator[Figures | None]:
    """What so many steps take on one thread, again and again; of several processes rank 0 alone says it."""
    here, sums = world(), TimedSums(world())
    recipe = recipe_files.load(recipe_name, ONE_BATCH)
    step = steps.step_of(recipe)
    step.all_sum = sums if here.size > 1 else None
    step.lanes = step.lanes[:1]
    rows = recipe.train.batch_size // here.size
    mine = slice(here.rank * rows, (here.rank + 1) * rows)
    with blas.single_threaded():
        for number in itertools.count():
            batches = [steps.random_batches(recipe, number * count + each)[0] for each in range(count)]
            here.gather(b"+")
            started, cpu, sums.seconds = time.perf_counter(), time.process_time(), 0.0
            for tokens, weights in batches:
                step([(tokens[mine], weights[mine])], recipe.train.learning_rate, mx.random.key(0))
            here.gather(b"+")
            seconds = time.perf_counter() - started
            cpus = [float(np.frombuffer(one)[0]) for one in here.gather(np.array(time.process_time() - cpu).tobytes())]
            figures = {"seconds": seconds, "cpu_seconds": max(cpus), "sum_seconds": sums.seconds}
            yield figures if here.leads else None


# ---------------------------------------------------------------------- both sides
def start(processes: int, given: argparse.Namespace) -> Worker:
    """That many processes, as one worker."""
    launcher: list[str] = []
    if processes > 1:
        program = shutil.which("mlx.launch", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if program is None:
            raise UserError("mlx.launch comes with mlx, but is not to be found")
        launcher = [program, "-n", str(processes), "--backend", "ring", "-p", str(given.port), "--"]
    one_thread = {"MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return Worker(turns, given.recipe, given.steps, launcher=launcher, environment=one_thread)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", default="tiny-tale")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps of one side before the other has its turn")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--port", type=int, default=32323, help="the first of the ports that the processes listen on")


def measure(given: argparse.Namespace, report: Report) -> None:
    recipe = recipe_files.load(given.recipe, ONE_BATCH)
    if given.processes < 2 or recipe.train.batch_size % given.processes:
        raise UserError(f"a batch of {recipe.train.batch_size} cannot be shared by {given.processes} processes")
    table = report.table(
        f"Steps of {given.recipe}, one thread a process",
        ["processes"],
        [
            Column("speed", "tokens/s", "higher"),
            Column("beside one process", "x", "higher"),
            Column("CPU seconds of a step", "s", "lower"),
            Column("beside one process, by CPU", "x", "higher"),
            Column("time in sums", "share", "lower"),
        ],
        ["CPU seconds are those of the busier process; sums over the processes include waiting for the other one"],
    )
    rows = [table.row(1), table.row(given.processes)]
    for row in rows:
        with excused(row):
            steps.forecast_memory(recipe)
    sides = [(row, partial(start, int(row.key[0]), given)) for row in rows]
    tokens = steps.tokens_of_a_step(recipe) * given.steps
    for found in take_turns(sides, given.rounds, WARM_UP):
        one = found[0]
        for row, figures in zip(rows, found, strict=True):
            if figures is None:
                continue
            row.add(
                speed=tokens / figures["seconds"],
                CPU_seconds_of_a_step=figures["cpu_seconds"] / given.steps,
                time_in_sums=figures["sum_seconds"] / figures["seconds"],
            )
            if one:
                row.add(beside_one_process=one["seconds"] / figures["seconds"])
                row.add(**{"beside one process, by CPU": one["cpu_seconds"] / figures["cpu_seconds"]})


if __name__ == "__main__":
    main("scaling")
