"""What does each part of a recipe bring, at the same number of tokens?

    tinytale bench ablation --data shakespeare.txt --out results

nanoGPT's laptop budget on the characters of Shakespeare: 4 layers of 128, context 64, 2,000 steps of 12 rows, 1.536M
tokens. Each variant changes the recipe `shakespeare-char` by the keys that it names, and is trained at several learning
rates, since a comparison at one rate is one of rates. The loss is that of the whole validation split, in nats per
character. With --out, runs that its ablation.jsonl has already are not run again. Without --data the text is
embedded tales, which a model learns soon: good for seeing that it works, and for nothing else.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tinytale_mlx import recipe_files, stages
from tinytale_mlx.data import sources
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import DataRecipe

from .apart import Figures, call
from .results import Column, Report, Row
from .runner import folder, main

QUIET = ["train.validate_every=1000000", "train.save_every=1000000", "train.sample_every=1000000"]
GELU = ["model.activation=gelu_tanh"]  # of the two GELUs the one that is no slower on a CPU
ROPE = ["model.positions=rope", "model.norm=rmsnorm"]
LINEAR = ["train.schedule=linear", "train.min_learning_rate=0"]
MUON = ["train.optimizer=muon"]
QWEN = [*ROPE, "model.activation=swiglu", "model.intermediate_size=344", "model.qk_norm=true",
        "model.residual_init=zero", *LINEAR]  # fmt: skip
NANOCHAT = [*ROPE, "model.norm_weight=false", "model.activation=relu2", "model.qk_norm=true",
            "model.residual_init=zero", "model.tie_embeddings=false", *LINEAR]  # fmt: skip

VARIANTS: dict[str, tuple[list[str], list[float]]] = {
    "nanoGPT": (GELU, [1e-3, 3e-3, 6e-3]),
    "+ RoPE, RMSNorm": ([*ROPE, *GELU], [3e-3, 6e-3]),
    "+ zero-init projections": ([*ROPE, *GELU, "model.residual_init=zero"], [3e-3, 6e-3]),
    "+ RoPE, RMSNorm, Muon": ([*ROPE, *GELU, *MUON], [5e-3, 1e-2, 2e-2]),
    "Qwen3's layout": (QWEN, [3e-3, 5e-3]),
    "Qwen3's layout, Muon": ([*QWEN, *MUON], [5e-3, 1e-2, 2e-2]),
    "nanochat's layout, Muon": ([*NANOCHAT, *MUON], [5e-3, 1e-2, 2e-2]),
}
"""Name: overrides, and the learning rates to try. Both last ones load in mlx-lm and transformers as they are."""
QUICK = {"variants": ["nanoGPT", "+ RoPE, RMSNorm", "+ RoPE, RMSNorm, Muon"], "rates": 1, "seeds": [1], "steps": 60}


Job = tuple[str, float, int]
"""Variant, learning rate, seed."""


def train(data: str | None, variant: str, rate: float, seed: int, steps: int) -> Figures:
    """Train one recipe; its validation loss and CPU seconds."""
    length = [f"train.steps={steps}", f"train.warmup_steps={steps // 20}"]
    changes = [*VARIANTS[variant][0], f"train.learning_rate={rate}", *length, f"seed={seed}"]
    started = time.process_time()
    with tempfile.TemporaryDirectory() as runs:
        text = data or _tales(Path(runs) / "tales.txt")
        recipe = recipe_files.load("shakespeare-char", [f"data.source={text}", *QUIET, *changes])
        figures = stages.train(recipe, root=Path(runs)).to_json()
    return {
        "data": data,
        "steps": steps,
        "variant": variant,
        "learning_rate": rate,
        "seed": seed,
        "val_loss": figures["val_loss"],
        "train_loss": figures["train_loss"],
        "tokens": figures["tokens"],
        "cpu_seconds": round(time.process_time() - started, 1),
        "changes": changes,
    }


def _tales(file: Path) -> str:
    """Some embedded tales as a text; their conversations need markers, which characters have not."""
    found = sources.documents(DataRecipe(documents=500), seed=0)
    file.write_text("\n".join(one for one in found if isinstance(one, str)))
    return str(file)


def missing(done: Iterable[dict[str, Any]], variants: dict[str, list[float]], seeds: list[int]) -> Iterator[Job]:
    """What is still to be run: every rate of every variant with the first seed, then the best rate with the others."""
    found = {(row["variant"], row["learning_rate"], row["seed"]): row["val_loss"] for row in done}
    for variant, rates in variants.items():
        for rate in rates:
            if (variant, rate, seeds[0]) not in found:
                yield variant, rate, seeds[0]
                return
    for variant, rates in variants.items():
        best = min(rates, key=lambda rate: found[variant, rate, seeds[0]])
        for seed in seeds[1:]:
            if (variant, best, seed) not in found:
                yield variant, best, seed
                return


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="the text: nanoGPT's shakespeare_char input")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--rates", type=int, help="at most so many learning rates of each variant")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=2000)


def measure(given: argparse.Namespace, report: Report) -> None:
    if given.data and not Path(given.data).exists():
        raise UserError(f"there is no file {given.data}")
    columns = [Column("validation loss", "nats", "lower"), Column("CPU time", "s", "lower")]
    notes = ["medians over the seeds; CPU time is that of one run"]
    table = report.table(f"{given.steps:,} steps from scratch", ["variant", "learning rate"], columns, notes)
    rows: dict[tuple[str, float], Row] = {}

    def add(run: Figures) -> None:
        key = run["variant"], run["learning_rate"]
        rows[key] = rows.get(key) or table.row(*key)
        rows[key].add(validation_loss=run["val_loss"], CPU_time=run["cpu_seconds"])

    variants = {name: VARIANTS[name][1][: given.rates] for name in given.variants}
    with nullcontext(given.out) if given.out else tempfile.TemporaryDirectory() as place:
        file = folder(Path(place)) / "ablation.jsonl"
        done = [row for row in read(file) if (row["data"], row["steps"]) == (given.data, given.steps)]
        for run in done:
            add(run)
        while job := next(missing(done, variants, given.seeds), None):
            done.append(call(train, given.data, *job, given.steps))
            add(done[-1])
            with file.open("a") as log:
                log.write(json.dumps(done[-1]) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main("ablation")
