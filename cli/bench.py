"""`tinytale bench`: measured comparisons, each of which anybody can repeat."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from tinytale_mlx import run

from ..benchmarks import NAMES, question
from .options import Json, print_json

app = typer.Typer(
    name="bench",
    help="Measure speed, memory and quality, beside other programs: one command for each question.",
    no_args_is_help=True,
)
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write it.")]


@app.command(name="all")
def all_(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller measurements, minutes in all.")] = False,
    peers: Annotated[bool, typer.Option("--peers", help="Beside other programs, where they are installed.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Answer all questions, one after the other: hours, or with --quick minutes.

    Writes report.html, the same as Markdown with pictures, results.json and a file for each benchmark; by default in a
    new folder in runs/bench/. What was measured before Ctrl-C is kept.

    Examples:

        tinytale bench all --quick

        tinytale bench all --peers --out results/my-mac
    """
    from ..benchmarks import results, runner

    place = out or run.ROOT / "bench" / f"{datetime.now():%Y-%m-%d-%H%M%S}"
    reports = runner.run_all(quick, peers, place)
    if json:
        print_json(results.all_to_json(reports))
    else:
        typer.echo(f"{place / 'report.html'} (open it in a browser), and {place / 'results.json'}")
    raise typer.Exit(runner.exit_code(reports))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="What a benchmark wrote, or results.json of all.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="The same, from another time or machine.")],
    out: Out = None,
) -> None:
    """Set two results side by side, with how many times the first's figures the second's are.

    Examples:

        tinytale bench compare before/results.json after/results.json

        tinytale bench compare mac/training.json linux/training.json --out comparison
    """
    from ..benchmarks import runner, text

    page = runner.compare(first, second)
    text.show(page)
    if out:
        runner.write_page(page, "comparison", out)


def _passed_on(name: str) -> None:
    """A command whose options, -h among them, are the benchmark's own."""

    def bench(context: typer.Context) -> None:
        from ..benchmarks import runner

        runner.main(name, context.args)

    words = f"{question(name)}\n\nExamples:\n\n    tinytale bench {name} --quick"
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name=name, help=words, add_help_option=False, context_settings=settings)(bench)


for _name in NAMES:
    _passed_on(_name)
