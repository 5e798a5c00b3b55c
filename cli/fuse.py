"""`tinytale fuse`: an adapter becomes part of the weights."""

from pathlib import Path
from typing import Annotated

import typer

from tinytale_mlx import run

from .options import Adapter, Json, Model, Runs, print_json


def fuse(
    model: Model = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new model directory. Default: fused, inside the run.")
    ] = None,
    adapter: Adapter = None,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Of a quantized base: leave the result in full precision.")
    ] = False,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Write a model directory with the adapter in its weights; every program that reads models reads it.

    Examples:

        tinytale fuse

        tinytale fuse my-run-lora --output my-model

        tinytale fuse my-run --adapter adapters/ --output my-model
    """
    from tinytale_mlx import stages

    place = output or stages.place_for(adapter or model, "fused", runs)
    made = stages.fuse_adapter(model, place, adapter, dequantize, runs)
    if json:
        print_json(made)
    else:
        print(made["text"])
        print(f"the model is in {made['model']}; now try:\n  tinytale chat {made['model']}")
