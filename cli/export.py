"""`tinytale export`: a model for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from tinytale_mlx import run

from .options import Adapter, Json, Model, Runs, print_json


def export(
    model: Model = None,
    to: Annotated[
        str, typer.Option("--to", help="gguf, one file for llama.cpp, Ollama and LM Studio; or hf, for transformers.")
    ] = "gguf",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new file or directory. Default: inside the run.")
    ] = None,
    adapter: Adapter = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, float16 or bfloat16 (hf alone). Default: the model's.")
    ] = None,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Of a quantized model: write the weights in full precision.")
    ] = False,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Write the model as other programs read it; an adapter becomes part of the weights.

    A run's model/ is a directory for transformers and mlx-lm already, so the default is the other one.

    Examples:

        tinytale export

        tinytale export my-run --dtype float16 --output my-run.gguf

        tinytale export my-run-lora --to hf --dtype bfloat16 --output my-model
    """
    from tinytale_mlx import stages

    place = output or stages.place_for(adapter or model, "model.gguf" if to == "gguf" else to, runs)
    made = stages.export_model(model, place, to, adapter, dtype, dequantize, runs)
    if json:
        print_json(made)
        return
    print(f"{made['model']}, {made['bytes'] / 1e6:.2f} MB, weights in {made['dtype']}")
    if made["text"]:
        print(made["text"])
