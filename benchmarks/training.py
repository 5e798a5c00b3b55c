"""How fast is one training step, beside a plain eager PyTorch loop of the same model?

    python -m tinytale_mlx.benchmarks.training --recipe tiny-tale --rounds 5

Both sides take turns in one run, so a busy machine slows both. Float32, the recipe's batch and context, random
tokens, AdamW and clipping on both sides. Needs the `peers` extra for the PyTorch rows; without it they say so.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import mlx.core as mx
import numpy as np

from tinytale_mlx import device, recipe_files, stages
from tinytale_mlx.recipe import Recipe
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.step import Step

from .machine import facts

StepFunction = Callable[[np.ndarray], float]
"""Takes tokens [B, T+1], does one optimiser step, returns the loss."""


def tinytale_step(recipe: Recipe) -> StepFunction:
    model = stages.blueprint(recipe)
    step = Step(model, make_optimizer(recipe.train), recipe.train.max_grad_norm)

    def run(tokens: np.ndarray) -> float:
        weights = np.ones((tokens.shape[0], tokens.shape[1] - 1), np.float32)
        result = step([(tokens, weights)], recipe.train.learning_rate, mx.random.key(0))
        return result.nats / result.tokens

    return run


def torch_step(recipe: Recipe) -> StepFunction:
    from .peers.torch_gpt import TorchTrainer

    config = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})
    return TorchTrainer(config, recipe.train).step


def measure(recipe: Recipe, rounds: int, steps: int) -> list[dict]:
    """Tokens per second of each side: the median over `rounds` of `steps` steps, sides taking turns."""
    sides: dict[str, StepFunction] = {"tinytale": tinytale_step(recipe)}
    rows = []
    try:
        sides["PyTorch, eager"] = torch_step(recipe)
    except ImportError as error:
        rows.append({"program": "PyTorch, eager", "missing": f"{error}; install the peers extra"})
    rng = np.random.default_rng(0)
    shape = (recipe.train.batch_size, recipe.model.context + 1)
    draw = lambda: rng.integers(0, recipe.tokenizer.vocab_size, shape).astype(np.int32)  # noqa: E731
    for run in sides.values():  # warm-up: compiles, allocates
        for _ in range(3):
            run(draw())
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            batches = [draw() for _ in range(steps)]
            started = time.perf_counter()
            for tokens in batches:
                run(tokens)
            times[name].append((time.perf_counter() - started) / steps)
    per_step = shape[0] * (shape[1] - 1)
    ours = statistics.median(times["tinytale"])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        rows.append(
            {
                "program": name,
                "tokens_per_second": per_step / middle,
                "slowest": per_step / max(seconds),
                "fastest": per_step / min(seconds),
                "tinytale_is_times_as_fast": middle / ours,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="tiny-tale")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps of one program before the other has its turn")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device.configure()
    rows = measure(recipe_files.load(options.recipe), options.rounds, options.steps)
    if options.json:
        print(json.dumps({"machine": facts(), "rows": rows}))
        return
    for key, value in facts().items():
        print(f"{key:>14}  {value}")
    for row in rows:
        if "missing" in row:
            print(f"{row['program']:16} {row['missing']}")
        else:
            print(
                f"{row['program']:16} {row['tokens_per_second']:8,.0f} tokens/s "
                f"(from {row['slowest']:,.0f} to {row['fastest']:,.0f})  "
                f"tinytale is {row['tinytale_is_times_as_fast']:.2f} x as fast"
            )


if __name__ == "__main__":
    main()
