"""`tinytale eval`: how well a model predicts a text."""

from typing import Annotated

import typer

from tinytale_mlx import run
from tinytale_mlx.errors import UserError

from .options import Adapter, Json, Model, Runs, load_model, print_json


def evaluate(
    model: Model = None,
    adapter: Adapter = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="Texts to score: files, folders, globs. Default: what the run held out."),
    ] = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Loss, perplexity and bits per byte of a model, over the whole of a text.

    Loss and perplexity depend on the tokenizer; bits per byte compare across models.

    Examples:

        tinytale eval

        tinytale eval my-run --data other-stories.jsonl --json
    """
    from tinytale_mlx import stages
    from tinytale_mlx.recipe import DataRecipe

    if data:
        score = stages.score_text(
            load_model(model, adapter, runs), DataRecipe(source=data[0] if len(data) == 1 else data)
        )
    elif adapter:
        raise UserError(
            "--adapter goes with --data FILE; of a fine-tuning, `tinytale eval RUN` scores what it held out"
        )
    else:
        score = stages.score_held_out(model, runs)
    figures = {"loss": score.loss, "perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte}
    if json:
        print_json(figures | {"tokens": score.tokens, "bytes": score.bytes})
    else:
        print(
            f"loss {score.loss:.4f} nats per token, perplexity {score.perplexity:.3f}, "
            f"{score.bits_per_byte:.4f} bits per byte ({score.tokens:,} tokens, {score.bytes:,} bytes)"
        )
