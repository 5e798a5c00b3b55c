"""How fast is a training step, and how much memory does it take, beside other programs and at several sizes?

    tinytale bench training --peers --rounds 5 --steps 2

One optimiser step of a plain Llama (RMSNorm, RoPE, SwiGLU, tied head) in float32 on random tokens, with AdamW and
clipping: our step, that of mlx-lm's trainer, which does not clip, and with --peers a plain eager loop in PyTorch, in
float32 and with bfloat16 autocast. Each program is a process of its own; they take turns, so a busy machine slows all
of them, and the ratios are the medians of the rounds' ratios. MLX counts its peak itself; the process's counts all.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import mlx.core as mx
import mlx.optimizers as optim

from tinytale_mlx import recipe_files
from tinytale_mlx.planning.parameters import count, planned_config
from tinytale_mlx.recipe import ModelConfig, Recipe

from . import steps
from .apart import Figures, Unavailable, Worker, excused, take_turns
from .machine import process_peak
from .results import Column, Report, Row
from .runner import main

SIZES = {
    "1m": ["model.hidden_size=128", "model.layers=4", "model.heads=4", "model.intermediate_size=384",
           "tokenizer.vocab_size=2048"],
    "4m": ["model.hidden_size=256", "model.layers=4", "model.heads=4", "model.intermediate_size=768",
           "tokenizer.vocab_size=4096"],
    "17m": [],
    "51m": ["model.hidden_size=512", "model.layers=8", "model.heads=8", "model.intermediate_size=1408",
            "tokenizer.vocab_size=50257"],
}  # fmt: skip
"""The recipe tiny-tale, with these changes."""
FREE = {"hidden_size", "layers", "heads", "context", "intermediate_size", "vocab_size", "rope_theta", "norm_eps",
        "init", "init_std", "residual_init"}  # fmt: skip
"""Keys of `model` in which the programs may differ from the defaults, or which do not matter for a speed."""
PROGRAMS = ("tinytale", "mlx-lm")
PEERS = ("PyTorch, float32", "PyTorch, bfloat16 autocast")
QUICK = {"size": ["1m", "4m"], "rounds": 2, "steps": 1, "batch_size": 2}

TrainStep = Callable[[int], object]
"""Takes the optimiser step with that number."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["1m", "4m", "17m"])
    parser.add_argument("--recipe", nargs="+", default=[], help="measure these instead; peers only know plain Llamas")
    parser.add_argument("--batch-size", type=int, help="rows of a step; the recipe's, if left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps of one program before the next has its turn")


def measure(given: argparse.Namespace, report: Report) -> None:
    table = report.table(
        "Training steps",
        ["model", "program"],
        [
            Column("parameters"),
            Column("speed", "tokens/s", "higher"),
            Column("per CPU second", "tokens", "higher"),
            Column("tinytale beside it", "x", "higher"),
            Column("peak by MLX", "bytes", "lower"),
            Column("peak of the process", "bytes", "lower"),
        ],
    )
    plot = report.plot(
        "Speed of training against size", Column("parameters"), Column("speed", "tokens/s", "higher"), logarithmic=True
    )
    programs = [*PROGRAMS, *(PEERS if given.peers else ())]
    lines = {program: plot.line(program) for program in programs}
    chosen = {name: (name, []) for name in given.recipe} or {size: ("tiny-tale", SIZES[size]) for size in given.size}
    for model, (name, sets) in chosen.items():
        sets = ["train.accumulate=1", *sets, *([f"train.batch_size={given.batch_size}"] if given.batch_size else [])]
        recipe = recipe_files.load(name, sets)
        rows = {program: table.row(model, program) for program in programs}
        parameters = count(planned_config(recipe))
        for program, row in rows.items():
            row.set(parameters=parameters)
            lines[program].add(parameters, row.measured("speed"))
            with excused(row):
                steps.forecast_memory(recipe)
        sides = [(row, partial(Worker, turns, program, name, sets, given.steps)) for program, row in rows.items()]
        for found in take_turns(sides, given.rounds):
            _add(rows, found, given.steps * steps.tokens_of_a_step(recipe))


def _add(rows: dict[str, Row], found: list[Figures | None], tokens: int) -> None:
    """A round's figures."""
    ours = found[0]
    for row, figures in zip(rows.values(), found, strict=True):
        if figures is None:
            continue
        row.add(speed=tokens / figures["seconds"], per_CPU_second=tokens / figures["cpu_seconds"])
        row.set(**{"peak by MLX": figures["peak"], "peak of the process": figures["process_peak"]})
        if ours:
            row.add(tinytale_beside_it=figures["seconds"] / ours["seconds"])


# ---------------------------------------------------------------------- the programs
def turns(program: str, recipe_name: str, sets: list[str], count: int) -> Iterator[Figures]:
    """What so many steps take, again and again."""
    recipe = recipe_files.load(recipe_name, sets)
    step = STEPS[program](recipe)
    for first in itertools.count(step=count):
        found = steps.timed(lambda first=first: [step(number) for number in range(first, first + count)])
        yield {**found, "peak": found["peak"] if program in PROGRAMS else None, "process_peak": process_peak()}


def tinytale_step(recipe: Recipe) -> TrainStep:
    step = steps.step_of(recipe)
    return lambda number: steps.take(step, recipe, number)


def mlx_lm_step(recipe: Recipe) -> TrainStep:
    from .peers.mlx_lm_gpt import llama_of, training_step

    check_plain(recipe)
    train, model = recipe.train, llama_of(planned_config(recipe))
    optimizer = optim.AdamW(
        train.learning_rate, [train.beta1, train.beta2], weight_decay=train.weight_decay, bias_correction=True
    )
    step = training_step(model, optimizer)

    def run(number: int) -> None:
        [(tokens, weights)] = steps.random_batches(recipe, number)
        whole = mx.broadcast_to(mx.array([0, weights.shape[1]]), (len(tokens), 2))
        step(mx.array(tokens), whole)

    return run


def torch_step(recipe: Recipe, autocast: bool = False) -> TrainStep:
    from .peers.torch_gpt import TorchTrainer

    check_plain(recipe)
    trainer = TorchTrainer(planned_config(recipe), recipe.train, autocast)
    return lambda number: trainer.step(steps.random_batches(recipe, number)[0][0])


STEPS: dict[str, Callable[[Recipe], TrainStep]] = {
    "tinytale": tinytale_step,
    "mlx-lm": mlx_lm_step,
    "PyTorch, float32": torch_step,
    "PyTorch, bfloat16 autocast": partial(torch_step, autocast=True),
}


def check_plain(recipe: Recipe) -> None:
    """Raises Unavailable for a model or a step that the other programs here do not have."""
    given = {f"model.{name}={value}" for name, value in recipe.model if name not in FREE}
    plain = {f"model.{name}={field.default}" for name, field in ModelConfig.model_fields.items()}
    other = sorted(given - plain)
    other += [f"train.optimizer={recipe.train.optimizer}"] if recipe.train.optimizer != "adamw" else []
    if other:
        raise Unavailable(f"has no {', '.join(other)} here")


if __name__ == "__main__":
    main("training")
