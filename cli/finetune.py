"""`tinytale finetune`: a trained model learns to follow examples."""

import json as json_module
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinytale_mlx import recipe_files, run
from tinytale_mlx.errors import UserError

from .options import Force, Json, LearningRate, Resume, Runs, Set, TensorBoard, Wandb, WandbModel
from .watching import make_trackers, watch

if TYPE_CHECKING:
    from tinytale_mlx.recipe import FinetuneRecipe


METHODS = {
    "lora": ["tune.method=lora"],
    "qlora": ["tune.method=lora", "tune.quantize={}"],
    "dora": ["tune.method=dora"],
    "prompt-tuning": ["tune.method=prompt"],
    "prefix": ["tune.method=prefix"],
    "full": ["tune.method=full"],
}
"""What each flag means in a recipe."""


def finetune(
    base: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="A run, a model directory, or mlx-community/NAME. Default: the latest run."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="Your own examples: files, folders, globs, a data set; or identity."),
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Low-rank updates of every matrix. The default.")] = False,
    qlora: Annotated[bool, typer.Option("--qlora", help="The same on a model kept in 4 bits.")] = False,
    dora: Annotated[bool, typer.Option("--dora", help="Low-rank updates with a magnitude for each row.")] = False,
    prompt_tuning: Annotated[
        bool, typer.Option("--prompt-tuning", help="A few learned tokens before every text.")
    ] = False,
    prefix: Annotated[bool, typer.Option("--prefix", help="Learned keys and values before every text.")] = False,
    full: Annotated[bool, typer.Option("--full", help="All weights.")] = False,
    rank: Annotated[int | None, typer.Option("--rank", help="Of the updates; --set tune.rank=N.")] = None,
    template: Annotated[
        str | None,
        typer.Option("--template", help="chatml, lillm, question, alpaca or plain. Default: the model's own."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Name of the run. Default: MODEL-METHOD.")] = None,
    resume: Resume = False,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="A batch holds so many long examples.")] = None,
    learning_rate: LearningRate = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of adapters, order of examples and dropout.")] = None,
    force: Force = False,
    set_: Set = None,
    wandb: Wandb = None,
    wandb_model: WandbModel = False,
    tensorboard: TensorBoard = False,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Teach a trained model to follow examples: its own LoRA adapter, or another method.

    Without arguments the latest run learns the embedded conversations. `tinytale chat` then talks to the result.

    Examples:

        tinytale finetune

        tinytale finetune my-run --data my-questions.jsonl --rank 16

        tinytale finetune --full --data identity --steps 200

        tinytale finetune mlx-community/SmolLM2-135M-Instruct --qlora --data chats.jsonl

        tinytale finetune --resume
    """
    from tinytale_mlx import stages

    methods = {
        "lora": lora, "qlora": qlora, "dora": dora, "prompt-tuning": prompt_tuning, "prefix": prefix, "full": full,
    }  # fmt: skip
    flags = {
        "tune.rank": rank, "data.template": template, "train.steps": steps, "train.batch_size": batch_size,
        "train.learning_rate": learning_rate, "seed": seed,
    }  # fmt: skip
    overrides = [
        *method_of(methods),
        *([f"data.source={json_module.dumps(data[0] if len(data) == 1 else data)}"] if data else []),
        *(set_ or []),
        *(f"{key}={value}" for key, value in flags.items() if value is not None),
    ]
    trackers = make_trackers(wandb, wandb_model, tensorboard)
    recipe = _recipe(base, overrides, resume, name, runs)
    watch(partial(stages.finetune, recipe, name, resume, runs, force=force, trackers=trackers), json)


def method_of(flags: dict[str, bool]) -> list[str]:
    """The overrides for the method whose flag is given. Raises UserError for two."""
    asked = [method for method, given in flags.items() if given]
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} are two methods; choose one")
    return METHODS[asked[0]] if asked else []


def _recipe(base: str | None, overrides: list[str], resume: bool, name: str | None, runs: Path) -> "FinetuneRecipe":
    """What to train: a new recipe, or that of the run that is resumed, with the overrides."""
    from tinytale_mlx import stages

    if not resume:
        return stages.finetune_recipe(base, overrides, runs)
    if base is not None:
        raise UserError(f"a run that is resumed has its model already; leave out {base}, or name the run with --name")
    this = run.find(name, runs)
    this.finetune_recipe()  # refuses a run of another kind
    return recipe_files.load_finetune(this.recipe_path, overrides)
