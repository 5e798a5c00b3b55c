"""`tinytale info`: what a recipe or a model is, before or after training."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tinytale_mlx import run

from .options import Json, Runs, Set, print_json


def info(
    what: Annotated[
        str | None, typer.Argument(help="A recipe, a YAML file, a run or a model directory. Default: the latest run.")
    ] = None,
    set_: Set = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Parameters, shapes, context, vocabulary, and in which layout other programs can read the model.

    Examples:

        tinytale info tiny-tale

        tinytale info lillm --set model.layers=6 --json
    """
    from tinytale_mlx import stages

    facts = stages.describe(what, set_ or [], runs)
    if json:
        print_json({key: value for key, value in facts.items() if key != "shapes"})
        return
    console = Console(highlight=False)
    for key, value in facts.items():
        if key != "shapes":
            text = f"{value:,}" if isinstance(value, int) else value
            console.print(f"[bold]{key.replace('_', ' '):>22}[/bold]  {text}")
    table = Table("parameter", "shape", "count", box=None, header_style="dim")
    for name, shape, count in facts["shapes"]:
        table.add_row(name, " x ".join(map(str, shape)), f"{count:,}")
    console.print(table)
