"""`tinytale log`: the figures of a run as a table, for eyes, for a spreadsheet or for a program."""

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tinytale_mlx import disk, run
from tinytale_mlx.reports.log import figures, read_events, write_csv
from tinytale_mlx.reports.wording import duration, quantity

from .options import Json, Runs, print_json

LINES = 30
"""Of a table on the screen, at most about so many."""


def log(
    name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run, by name or path. Default: the latest.")
    ] = None,
    csv: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write every figure of every step there; - for stdout.")
    ] = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """The figures of a run, finished or not: loss, perplexity, learning rate, gradient norm, speed, memory.

    Examples:

        tinytale log

        tinytale log my-run --csv figures.csv

        tinytale log --csv -
    """
    this = run.find(name, runs)
    rows = figures(read_events(this.log_path))
    if csv == "-":
        write_csv(rows, sys.stdout)
    elif csv is not None:
        with disk.writing("the figures", Path(csv)), Path(csv).open("w", encoding="utf-8", newline="") as file:
            write_csv(rows, file)
    if json:
        print_json({"run": str(this.path), "rows": rows})
    elif csv is None:
        Console(highlight=False).print(_table(rows))


def _table(rows: list[dict[str, Any]]) -> Table:
    """The first row, the last, those with a validation if there are not too many, and some between."""
    every = max(math.ceil(len(rows) / LINES), 1)
    validated = [row for row in rows if row.get("val_loss") is not None]
    kept = {id(row) for row in [*rows[::every], *rows[-1:], *(validated if len(validated) <= LINES else [])]}
    table = Table(box=None, header_style="dim")
    for header in ("step", "loss", "validation", "perplexity", "rate", "gradient", "tokens/s", "memory", "time"):
        table.add_column(header, justify="right")
    for row in rows:
        if id(row) in kept:
            table.add_row(*_cells(row))
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    formats = {
        "step": "{:,}".format,
        "loss": "{:.3f}".format,
        "val_loss": "{:.3f}".format,
        "perplexity": "{:.4g}".format,
        "learning_rate": "{:.1e}".format,
        "grad_norm": "{:.3g}".format,
        "tokens_per_second": quantity,
        "peak_memory_bytes": lambda count: f"{count / 1e6:,.0f} MB",
        "seconds": duration,
    }
    return [show(row[name]) if row.get(name) is not None else "" for name, show in formats.items()]
