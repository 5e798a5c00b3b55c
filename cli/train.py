"""`tinytale train`: from a recipe to a model, with a live view, and safe to stop at any moment."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tinytale_mlx import recipe_files, run
from tinytale_mlx.recipe import Recipe

from .groups import Training, spread
from .options import own_text
from .watching import make_trackers, watch


@spread
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", help="A built-in recipe (see `tinytale recipes`) or a YAML file. Default: tale, the demo."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", "-d", help="Train on your own text: files, folders, globs, a data set, or - for standard input."
        ),
    ] = None,
    branch: Annotated[
        str | None,
        typer.Option("--branch", metavar="NAME", help="Go on with it as a new run NAME, with changes to the recipe."),
    ] = None,
    from_step: Annotated[
        int | None, typer.Option("--from-step", help="With --branch: from the checkpoint of this step, not the last.")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option("--init-from", metavar="RUN", help="Begin with the weights and tokenizer of a run or a model."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Optimiser steps; --set train.steps=N, and no train.epochs.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Sequences per micro-batch.")] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train the tokenizer even if it was trained on this text before.")
    ] = False,
    *,
    how: Training,
) -> None:
    """Train a tokenizer and a model, print what it writes, and leave a model directory.

    Without arguments this trains the demo on embedded tales: a few minutes, no download.

    Examples:

        tinytale train

        tinytale train --data my-book.txt --name book

        tinytale train tiny-tale --data stories/ --set train.steps=5000

        tinytale train --resume

        tinytale train --resume --branch calmer --learning-rate 1e-4
    """
    from tinytale_mlx import stages

    flags = {
        "train.steps": steps, "train.epochs": None if steps is None else "null", "train.batch_size": batch_size,
        "train.learning_rate": how.learning_rate, "seed": how.seed,
    }  # fmt: skip
    if not stages.leads():
        _follow(how.runs)
        return
    with stages.leading():
        trackers = make_trackers(how)
        wanted = _recipe(recipe, data, how.overrides(flags), how.resume or branch is not None, how)
    more = {"branch": branch, "from_step": from_step, "init_from": init_from, "force": how.force, "trackers": trackers}
    watch(partial(stages.train, wanted, how.name, how.resume, how.runs, retrain=retrain, **more), how.json)


def _follow(runs: Path) -> None:
    """What a process of `mlx.launch` does that is not the first one, which does all the talking."""
    from tinytale_mlx import stages

    from .signals import StopSignals

    with StopSignals(announced=False) as signals:
        signals.arm()
        stages.follow(runs, signals.requested)


def _recipe(recipe: str | None, data: list[str] | None, overrides: list[str], resume: bool, how: Training) -> Recipe:
    """What to train: the recipe with its overrides. A run that is resumed without naming a recipe keeps its own."""
    file = recipe or "tale"
    if resume and recipe is None:
        this = run.find(how.name, how.runs)
        this.recipe()  # refuses a run of another kind
        file = str(this.recipe_path)
    return recipe_files.load(file, [*own_text(data), *overrides])
