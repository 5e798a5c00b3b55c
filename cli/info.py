"""`tinytale info`: what a recipe or a model is, before or after training."""

import re
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tinytale_mlx import run

from .options import Json, Runs, Set, print_json


def info(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT", help="A recipe, a YAML file, a run or a model directory. Default: the latest run."
        ),
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
    shapes = facts.pop("shapes")
    if json:
        print_json(facts)
        return
    console = Console(highlight=False)
    for key, value in facts.items():
        text = f"{value:,}" if isinstance(value, int) else escape(str(value))
        console.print(f"[bold]{key.replace('_', ' '):>22}[/bold]  {text}", soft_wrap=True)
    console.print(_table(shapes))


def _table(shapes: list[tuple[str, tuple[int, ...], int]]) -> Table:
    """A line for each kind of parameter; what every layer has is counted, not repeated."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for name, shape, count in shapes:
        kind = re.sub(r"\.layers\.\d+\.", ".layers.*.", name), " x ".join(map(str, shape))
        kinds.setdefault(kind, []).append(count)
    table = Table(box=None, header_style="dim")
    table.add_column("parameter", overflow="fold")
    for header in ("shape", "times", "numbers"):
        table.add_column(header, justify="right")
    for (name, shape), counts in kinds.items():
        table.add_row(name, shape, str(len(counts)), f"{sum(counts):,}")
    return table
