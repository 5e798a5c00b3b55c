"""`tinytale doctor`: what is here to train with, and what could be better."""

import typer
from rich.console import Console
from rich.markup import escape

from tinytale_mlx import run

from .options import Json, Runs, print_json

COLOURS = {"ok": "green", "advice": "yellow", "problem": "red"}


def doctor(runs: Runs = run.ROOT, json: Json = False) -> None:
    """Backend, matrix products, compiler, memory, disk and versions; exit code 1 if something prevents training.

    Examples:

        tinytale doctor

        tinytale doctor --json
    """
    from tinytale_mlx import stages

    checks = stages.doctor(runs)
    well = all(check.status != "problem" for check in checks)
    if json:
        print_json({"ok": well, "checks": [vars(check) for check in checks]})
    else:
        console = Console(highlight=False)
        for check in checks:
            colour = COLOURS[check.status]
            mark = f"[{colour}]{check.status:>7}[/{colour}]"
            console.print(f"{mark}  [bold]{check.name}[/bold]: {escape(check.text)}", soft_wrap=True)
    if not well:
        raise typer.Exit(1)
