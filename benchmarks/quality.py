"""How well does a recipe predict text it has not seen, in bits per byte, after how many tokens?

    tinytale bench quality --shakespeare input.txt --tinystories stories.jsonl --wikitext wikitext.txt --seeds 1 2 3

Each run trains from scratch in a process of its own, and is scored on its whole validation split. Bits per byte compare
across tokenizers, but only on the same text. With --out the runs' logs are kept there, as quality/RUN-SEED.jsonl; a run
whose text is not given says so. Losses are the same on a busy machine, times are not.
"""

import argparse
import json
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tinytale_mlx import recipe_files, stages
from tinytale_mlx.errors import UserError
from tinytale_mlx.reports.log import figures, read_events

from .apart import Figures, call, excused
from .results import Column, Line, Report
from .runner import folder, main

TEXTS = ("shakespeare", "tinystories", "wikitext")


@dataclass(frozen=True)
class Training:
    recipe: str
    text: str | None = None
    """Which of TEXTS; None for the embedded tales."""
    sets: list[str] = field(default_factory=list)


RUNS = {
    "tale": Training("tale"),
    "shakespeare-char": Training("shakespeare-char", "shakespeare"),
    "shakespeare": Training("shakespeare", "shakespeare"),
    "shakespeare-long": Training("shakespeare-long", "shakespeare"),
    "TinyStories sample": Training("tale", "tinystories"),
    "WikiText-2 sample": Training("tale", "wikitext"),
}
QUICK = {"steps": 60, "every": 20, "documents": 1500}


def train(recipe_name: str, sets: list[str], runs: str) -> Figures:
    """In this process: what `tinytale train --json` says, and CPU seconds and FLOPs."""
    recipe = recipe_files.load(recipe_name, sets)
    planned = stages.plan(recipe_name, sets)
    started = time.process_time()
    found = stages.train(recipe, "run", root=Path(runs)).to_json()
    spent = time.process_time() - started
    flops = planned.flops.training * found["tokens"]
    return {**found, "parameters": planned.parameters, "cpu_seconds": spent, "flops": flops}


def options(parser: argparse.ArgumentParser) -> None:
    for name in TEXTS:
        parser.add_argument(f"--{name}", metavar="FILE", help="the text of that name")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--steps", type=int, help="instead of the recipe's, with a shorter warm-up")
    parser.add_argument("--documents", type=int, help="at most so many of each text")
    parser.add_argument("--every", type=int, help="steps between validations; the recipe's, if left out")


def measure(given: argparse.Namespace, report: Report) -> None:
    texts = {name: getattr(given, name) for name in TEXTS}
    for file in filter(None, texts.values()):
        if not Path(file).exists():
            raise UserError(f"there is no file {file}")
    table = report.table(
        "Trained from scratch",
        ["run"],
        [
            Column("parameters"),
            Column("tokens"),
            Column("validation loss", "nats", "lower"),
            Column("bits per byte", "", "lower"),
            Column("time", "s", "lower"),
            Column("CPU time", "s", "lower"),
            Column("training", "TFLOP", "lower"),
            Column("peak", "bytes", "lower"),
        ],
    )
    plot = report.plot("Bits per byte against tokens", Column("tokens"), Column("validation", "bits per byte", "lower"))
    for name in given.runs:
        run, row = RUNS[name], table.row(name)
        if run.text and not texts[run.text]:
            row.missing = f"its text is not given: --{run.text} FILE"
            continue
        for seed in given.seeds:
            sets = _sets(run, texts[run.text] if run.text else None, seed, given)
            log = (
                given.out / "quality" / f"{re.sub('[^a-z0-9]+', '-', name.lower())}-{seed}.jsonl" if given.out else None
            )
            with excused(row):
                found = _run(run.recipe, sets, plot.line(f"{name}, seed {seed}"), log)
                row.set(parameters=found["parameters"], tokens=found["tokens"], training=found["flops"] / 1e12)
                row.add(
                    validation_loss=found["val_loss"],
                    bits_per_byte=found["val_bits_per_byte"],
                    time=found["seconds"],
                    CPU_time=found["cpu_seconds"],
                    peak=found["peak_memory_bytes"],
                )


def _sets(run: Training, text: str | None, seed: int, given: argparse.Namespace) -> list[str]:
    changes = {
        "data.source": json.dumps(text) if text else None,
        "data.documents": given.documents or ("null" if text else None),
        "train.steps": given.steps,
        "train.warmup_steps": given.steps and given.steps // 20,
        "train.validate_every": given.every,
        "seed": seed,
    }
    return [*run.sets, *(f"{key}={value}" for key, value in changes.items() if value is not None)]


def _run(recipe: str, sets: list[str], line: Line, log: Path | None) -> Figures:
    """The curve is drawn from the log, however the run ended."""
    with tempfile.TemporaryDirectory() as runs:
        written = Path(runs) / "run" / "log.jsonl"
        try:
            return call(train, recipe, sets, runs)
        finally:
            if written.exists():
                for one in figures(read_events(written)):
                    if one.get("val_bits_per_byte") is not None:
                        line.add(one["tokens"], one["val_bits_per_byte"])
                if log:
                    folder(log.parent)
                    shutil.copy(written, log)


if __name__ == "__main__":
    main("quality")
