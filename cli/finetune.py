"""`tinytale finetune`: a trained model learns to follow examples."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from tinytale_mlx import recipe_files, run
from tinytale_mlx.errors import UserError

from .groups import Tuning, spread
from .options import own_rows
from .watching import make_trackers, watch

if TYPE_CHECKING:
    from tinytale_mlx.recipe import FinetuneRecipe
    from tinytale_mlx.run import Run


METHODS = {
    "lora": ["tune.method=lora"],
    "qlora": ["tune.method=lora", "tune.quantize={}"],
    "dora": ["tune.method=dora"],
    "prompt-tuning": ["tune.method=prompt"],
    "prefix": ["tune.method=prefix"],
    "full": ["tune.method=full"],
}
"""What each flag means in a recipe."""


@spread
def finetune(
    base: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="A run, a model directory, or mlx-community/NAME. Default: the latest run."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="Your own examples: files, folders, a data set; or identity, endings."),
    ] = None,
    dora: Annotated[bool, typer.Option("--dora", help="Low-rank updates with a magnitude for each row.")] = False,
    prompt_tuning: Annotated[
        bool, typer.Option("--prompt-tuning", help="A few learned tokens before every text.")
    ] = False,
    prefix: Annotated[bool, typer.Option("--prefix", help="Learned keys and values before every text.")] = False,
    template: Annotated[
        str | None,
        typer.Option("--template", help="chatml, lillm, question, alpaca or plain. Default: the model's own."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="A batch holds so many long examples.")] = None,
    *,
    how: Tuning,
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
        "lora": how.lora, "qlora": how.qlora, "dora": dora, "prompt-tuning": prompt_tuning, "prefix": prefix,
        "full": how.full,
    }  # fmt: skip
    flags = {
        "tune.rank": how.rank, "data.template": template, "train.steps": steps, "train.batch_size": batch_size,
        "train.learning_rate": how.learning_rate, "seed": how.seed,
    }  # fmt: skip
    trackers = make_trackers(how)
    recipe = _recipe(base, [*method_of(methods), *own_rows(data), *how.overrides(flags)], how)
    watch(
        partial(stages.finetune, recipe, how.name, how.resume, how.runs, force=how.force, trackers=trackers), how.json
    )


def method_of(flags: dict[str, bool]) -> list[str]:
    """The overrides for the method whose flag is given. Raises UserError for two."""
    asked = [method for method, given in flags.items() if given]
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} are two methods; choose one")
    return METHODS[asked[0]] if asked else []


def _recipe(base: str | None, overrides: list[str], how: Tuning) -> "FinetuneRecipe":
    """What to train: a new recipe, or that of the run that is resumed, with the overrides."""
    from tinytale_mlx import stages

    if not how.resume:
        return stages.finetune_recipe(base, overrides, how.runs)
    this = run_to_resume(base, how)
    this.finetune_recipe()  # refuses a run of another kind
    return recipe_files.load_finetune(this.recipe_path, overrides)


def run_to_resume(base: str | None, how: Tuning) -> "Run":
    """Raises UserError where a base is named as well."""
    if base is not None:
        raise UserError(f"a run that is resumed has its model already; leave out {base}, or name the run with --name")
    return run.find(how.name, how.runs)
