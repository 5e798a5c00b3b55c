"""What does each part of a recipe bring, at the same number of tokens?

    python -m tinytale_mlx.benchmarks.ablation --data shakespeare.txt --out ablation.jsonl

nanoGPT's laptop budget on the characters of Shakespeare: 4 layers of 128, context 64, 2,000 steps of 12 rows, 1.536M
tokens. Each variant changes the recipe `shakespeare-char` by the keys that it names, and is trained at several learning
rates, since a comparison at one rate is one of rates. The loss is that of the whole validation split, in nats per
character. Variants, rates and seeds that the output file has already are not run again.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tinytale_mlx import recipe_files, stages

from .machine import facts

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


def measure(data: str, variant: str, rate: float, seed: int, steps: int) -> dict[str, Any]:
    """Train one recipe; its validation loss, parameters and CPU seconds."""
    changes = [*VARIANTS[variant][0], f"train.learning_rate={rate}", f"train.steps={steps}", f"seed={seed}"]
    recipe = recipe_files.load("shakespeare-char", [f"data.source={data}", *QUIET, *changes])
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        figures = stages.train(recipe, root=Path(folder)).to_json()
    return {
        "variant": variant,
        "learning_rate": rate,
        "seed": seed,
        "val_loss": figures["val_loss"],
        "train_loss": figures["train_loss"],
        "tokens": figures["tokens"],
        "cpu_seconds": round(time.process_time() - started, 1),
        "changes": changes,
    }


def missing(done: Iterable[dict[str, Any]], variants: list[str], seeds: list[int]) -> Iterator[tuple[str, float, int]]:
    """What is still to be run: every rate of every variant with the first seed, then the best rate with the others."""
    found = {(row["variant"], row["learning_rate"], row["seed"]): row["val_loss"] for row in done}
    for variant in variants:
        for rate in VARIANTS[variant][1]:
            if (variant, rate, seeds[0]) not in found:
                yield variant, rate, seeds[0]
                return
    for variant in variants:
        best = min(VARIANTS[variant][1], key=lambda rate: found[variant, rate, seeds[0]])
        for seed in seeds[1:]:
            if (variant, best, seed) not in found:
                yield variant, best, seed
                return


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each variant and rate: the mean over seeds, and how far apart they are."""
    losses: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in rows:
        losses[row["variant"], row["learning_rate"]].append(row["val_loss"])
    yield f"{'':28}{'rate':>8}{'loss':>9}{'spread':>9}{'seeds':>7}"
    for (variant, rate), values in losses.items():
        spread = max(values) - min(values)
        yield f"{variant:28}{rate:8g}{statistics.mean(values):9.4f}{spread:9.4f}{len(values):7}"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the text: nanoGPT's shakespeare_char input")
    parser.add_argument("--out", type=Path, default=Path("ablation.jsonl"), help="a line for each run, added to")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    print(json.dumps(facts()))
    while job := next(missing(read(options.out), options.variants, options.seeds), None):
        row = measure(options.data, *job, options.steps)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{row['variant']}, {row['learning_rate']:g}, seed {row['seed']}: {row['val_loss']:.4f}", flush=True)
    print("\n".join(table(read(options.out))))


if __name__ == "__main__":
    main()
