"""`tinytale report`: pictures of a run, on one page."""

from pathlib import Path
from typing import Annotated

import typer

from tinytale_mlx import run

from .options import Json, Runs, print_json


def report(
    name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run, by name or path. Default: the latest.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it. Default: report.html in the run."),
    ] = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Draw a run, finished or not: loss, bits per byte, speed, memory, and what it wrote on the way.

    It is one HTML file with everything in it, and Markdown with its pictures in a folder beside it.

    Examples:

        tinytale report

        tinytale report my-run --output my-run.html
    """
    from tinytale_mlx import stages

    this = run.find(name, runs)
    written = stages.report_run(this, output)
    if json:
        print_json({"run": str(this.path), **written.to_json()})
    else:
        typer.echo(f"{written.html} (open it in a browser), and as Markdown {written.markdown}")
