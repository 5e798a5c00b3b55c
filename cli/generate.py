"""`tinytale generate`: completions of a prompt."""

import sys
import time
from typing import Annotated

import typer

from tinytale_mlx import run

from .options import Json, MaxNewTokens, Model, Runs, Seed, Temperature, TopK, TopP, print_json


def generate(
    model: Model = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="What to continue; repeat it for several. '-' reads stdin. Default: nothing."),
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
    from tinytale_mlx.generation.engine import Completion, stream_text
    from tinytale_mlx.generation.prompts import stop_ids, text_prompt
    from tinytale_mlx.randomness import key

    from .settings import with_options

    loaded = stages.load(model, runs)
    settings = with_options(
        loaded.settings, temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=max_new_tokens
    )
    prompts = [sys.stdin.read() if text == "-" else text for text in prompt or [""]]
    done: list[Completion] = []
    started = time.perf_counter()
    for number, text in enumerate(prompts * count if count > 1 else prompts):
        completion = Completion()
        ids = text_prompt(loaded.tokenizer, text)
        if not json:
            print(text, end="", flush=True)
        for piece in stream_text(
            loaded.model, loaded.tokenizer, ids, settings, key(seed, "generate", number), stop_ids(loaded.tokenizer), completion
        ):
            if not json:
                print(piece, end="", flush=True)
        if not json:
            print("\n")
        done.append(completion)
    if json:
        tokens = sum(len(completion.tokens) for completion in done)
        print_json(
            {
                "completions": [
                    {"text": one.text, "tokens": len(one.tokens), "finish_reason": one.finish_reason} for one in done
                ],
                "tokens_per_second": tokens / (time.perf_counter() - started),
            }
        )
