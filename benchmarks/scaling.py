"""How much faster do two processes train than one, with one thread each?

    python -m tinytale_mlx.benchmarks.scaling --recipe tiny-tale --rounds 5

One process, and two that `mlx.launch` has started on this machine, take the same steps: the recipe's global batch of
random tokens, with AdamW or whatever the recipe says. They take turns in one run and wait without work meanwhile, so a
busy machine slows both; but a machine that has no two idle cores can't show what two processes gain. For that, compare
the CPU seconds: what one process spends on a step against what the busier one of two spends.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tinytale_mlx import blas, device, recipe_files, stages
from tinytale_mlx.recipe import Recipe
from tinytale_mlx.training.distributed import World, world
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.step import Gradients, Step

from .machine import facts

MODULE = "tinytale_mlx.benchmarks.scaling"
WARM_UP = 2


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


def work(recipe: Recipe, steps: int) -> None:
    """For each line on standard input, so many steps on one thread; then rank 0 prints how long they took."""
    here, sums = world(), TimedSums(world())
    step = Step(
        stages.blueprint(recipe),
        make_optimizer(recipe.train),
        recipe.train.max_grad_norm,
        precision=recipe.train.precision,
        all_sum=sums if here.size > 1 else None,
    )
    step.lanes = step.lanes[:1]
    rng = np.random.default_rng(here.rank)
    rows, context = recipe.train.batch_size // here.size, recipe.model.context
    weights = np.ones((rows, context), np.float32)
    with blas.single_threaded():
        for _ in sys.stdin:
            batches = rng.integers(0, recipe.tokenizer.vocab_size, (steps, rows, context + 1)).astype(np.int32)
            here.gather(b"+")
            started, cpu, sums.seconds = time.perf_counter(), time.process_time(), 0.0
            for tokens in batches:
                step([(tokens, weights)], recipe.train.learning_rate, mx.random.key(0))
            here.gather(b"+")
            seconds = time.perf_counter() - started
            cpus = [float(np.frombuffer(one)[0]) for one in here.gather(np.array(time.process_time() - cpu).tobytes())]
            if here.leads:
                figures = {"seconds": seconds, "cpu_seconds": max(cpus), "sum_seconds": sums.seconds}
                print(json.dumps(figures), flush=True)


# ---------------------------------------------------------------------- both sides
@contextmanager
def started(processes: int, options: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    """That many workers, which end with the block."""
    command = [sys.executable, "-m", MODULE, "--worker", "--recipe", options.recipe, "--steps", str(options.steps)]
    if processes > 1:
        launcher = shutil.which("mlx.launch", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert launcher, "mlx.launch comes with mlx, but is not to be found"
        command = [launcher, "-n", str(processes), "--backend", "ring", "-p", str(options.port), "--", *command]
    one_thread = {"MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen(
        command,
        env={**os.environ, **one_thread},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield worker
    finally:
        os.killpg(worker.pid, 9)
        worker.wait()


def turn(worker: subprocess.Popen[str]) -> dict[str, float]:
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write("go\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise SystemExit("a process has ended before its turn; its message is above")
    return json.loads(line)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each side: the median over the rounds, and what it is in relation to one process."""
    recipe = recipe_files.load(options.recipe)
    tokens = recipe.train.batch_size * recipe.model.context * options.steps
    with started(1, options) as one, started(options.processes, options) as several:
        sides = {1: one, options.processes: several}
        for _ in range(WARM_UP):  # compiles, allocates
            for worker in sides.values():
                turn(worker)
        turns = {number: [] for number in sides}
        for _ in range(options.rounds):
            for number, worker in sides.items():
                turns[number].append(turn(worker))
    rows = []
    for number, figures in turns.items():
        middle = {key: statistics.median(one[key] for one in figures) for key in figures[0]}
        seconds = [one["seconds"] for one in figures]
        rows.append(
            {
                "processes": number,
                "tokens_per_second": tokens / middle["seconds"],
                "slowest": tokens / max(seconds),
                "fastest": tokens / min(seconds),
                "sum_share": middle["sum_seconds"] / middle["seconds"],
                "cpu_seconds_per_step": middle["cpu_seconds"] / options.steps,
            }
        )
    for row in rows:
        row["times_as_fast"] = row["tokens_per_second"] / rows[0]["tokens_per_second"]
        row["times_as_fast_by_cpu"] = rows[0]["cpu_seconds_per_step"] / row["cpu_seconds_per_step"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="tiny-tale")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps of one side before the other has its turn")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--port", type=int, default=32323, help="the first of the ports that the processes listen on")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device.configure()
    if options.worker:
        work(recipe_files.load(options.recipe), options.steps)
        return
    rows = measure(options)
    if options.json:
        print(json.dumps({"machine": facts(), "rows": rows}))
        return
    for key, value in facts().items():
        print(f"{key:>14}  {value}")
    for row in rows:
        print(
            f"{row['processes']} x 1 thread {row['tokens_per_second']:8,.0f} tokens/s "
            f"(from {row['slowest']:,.0f} to {row['fastest']:,.0f}), {row['times_as_fast']:.2f} x one process; "
            f"{row['cpu_seconds_per_step']:.2f} CPU seconds a step in the busier process "
            f"({row['times_as_fast_by_cpu']:.2f} x); {row['sum_share']:.0%} of the time in sums"
        )


if __name__ == "__main__":
    main()
