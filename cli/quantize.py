"""`tinytale quantize`: a model in few bits, and what that costs."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from tinytale_mlx import run
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe.tuning import QuantizeRecipe

from .options import Json, Model, Runs, print_json


def quantize(
    model: Model = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new model directory. Default: quantized, inside the run.")
    ] = None,
    bits: Annotated[int | None, typer.Option("--bits", help="Per weight: 2, 3, 4, 5, 6 or 8. Default: 4.")] = None,
    group_size: Annotated[
        int | None, typer.Option("--group-size", help="Weights that share a scale: 32, 64 or 128. Default: 64.")
    ] = None,
    mode: Annotated[str, typer.Option("--mode", help="affine, mxfp4, nvfp4 or mxfp8.")] = "affine",
    budget: Annotated[
        float | None,
        typer.Option("--budget", help="So many bits per weight on average: the most sensitive matrices get 8 bits."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="Text to measure on. Default: what the run held out, or embedded tales."),
    ] = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Write a model directory with weights in few bits, and show perplexity and size before and after.

    Examples:

        tinytale quantize

        tinytale quantize my-run --bits 8 --output small

        tinytale quantize my-run --bits 3 --budget 4 --data stories.txt
    """
    from tinytale_mlx import stages

    console = Console(stderr=True, highlight=False)
    settings = _settings(mode, bits, group_size)
    place = output or stages.place_for(model, "quantized", runs)
    made = stages.quantize_model(
        model, place, settings, None, budget, data, runs, lambda text: console.print(f"[dim]{text} ...[/dim]")
    )
    if json:
        print_json(made)
    else:
        _show(made)


def _settings(mode: str, bits: int | None, group_size: int | None) -> QuantizeRecipe:
    try:
        return QuantizeRecipe.model_validate({"mode": mode, "bits": bits, "group_size": group_size})
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"--mode: {said}, not {mode!r}" if "Input" in said else said) from None


def _show(made: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("", "perplexity", "bits per byte", "MB", "bits per weight"):
        table.add_column(column, justify="left" if not column else "right")
    for name in ("before", "after"):
        one = made[name]
        weight = "" if one["bits_per_weight"] is None else f"{one['bits_per_weight']:.2f}"
        table.add_row(
            name, f"{one['perplexity']:.3f}", f"{one['bits_per_byte']:.4f}", f"{one['bytes'] / 1e6:.2f}", weight
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"measured on {made['text']}, {made['tokens']:,} tokens; the model is in {made['model']}")
