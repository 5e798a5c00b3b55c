"""`tinytale generate`: completions of a prompt."""

import itertools
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tinytale_mlx import run

from .options import Json, MaxNewTokens, Model, Runs, Seed, Temperature, TopK, TopP, print_json, printable

if TYPE_CHECKING:
    from tinytale_mlx.generation.engine import Completion
    from tinytale_mlx.recipe import GenerateRecipe
    from tinytale_mlx.stages import Loaded


def generate(
    model: Model = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", "-p", help="What to continue; repeat it for several. '-' reads stdin. Default: nothing."
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Completions of each prompt.")] = 1,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    seed: Seed = 0,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Write text with a model: a new document, or the continuation of a prompt.

    Examples:

        tinytale generate

        tinytale generate --prompt "Once upon a time" -n 3

        tinytale generate my-run --prompt "The fox" --temperature 0
    """
    from tinytale_mlx import stages

    from .settings import with_options

    loaded = stages.load(model, runs)
    settings = with_options(
        loaded.settings, temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=max_new_tokens
    )
    prompts = [sys.stdin.read() if text == "-" else text for text in prompt or [""]]
    started = time.perf_counter()
    done = [_write(loaded, settings, text, seed, number, quiet=json) for number, text in enumerate(prompts * count)]
    if json:
        seconds = time.perf_counter() - started
        print_json(
            {
                "completions": [
                    {"text": one.text, "tokens": len(one.tokens), "finish_reason": one.finish_reason} for one in done
                ],
                "tokens_per_second": sum(len(one.tokens) for one in done) / seconds,
            }
        )


def _write(
    loaded: "Loaded", settings: "GenerateRecipe", prompt: str, seed: int, number: int, quiet: bool
) -> "Completion":
    """Continue a prompt, on the screen as it comes unless `quiet`."""
    from tinytale_mlx.generation.engine import Completion, stream_text
    from tinytale_mlx.generation.prompts import stop_ids, text_prompt
    from tinytale_mlx.randomness import key

    completion, tokenizer = Completion(), loaded.tokenizer
    clean = printable if sys.stdout.isatty() else str
    pieces = stream_text(
        loaded.model,
        tokenizer,
        text_prompt(tokenizer, prompt),
        settings,
        key(seed, "generate", number),
        stop_ids(tokenizer),
        completion,
    )
    for piece in itertools.chain([prompt], pieces, ["\n\n"]):
        if not quiet:
            print(clean(piece), end="", flush=True)
    return completion
