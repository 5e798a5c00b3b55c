"""`tinytale generate`: completions of a prompt, or of a file of prompts."""

import itertools
import json as json_module
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinytale_mlx import disk, run
from tinytale_mlx.errors import UserError

from .groups import Sampling, spread
from .options import Adapter, Json, Model, Runs, Seed, load_model, print_json, printable

if TYPE_CHECKING:
    from tinytale_mlx.generation.text import Completion
    from tinytale_mlx.stages import Loaded

TOGETHER = 16
"""Prompts of a file that are computed together, and written before the next are begun."""
LINES = (".jsonl", ".ndjson")
DRAWING = ("temperature", "top_k", "top_p", "min_p")
"""What is for drawing a token, which a search for the likeliest text never does."""


@spread
def generate(
    model: Model = None,
    adapter: Adapter = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", "-p", help="What to continue; repeat it for several. '-' reads stdin. Default: nothing."
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts-file", "-f", help="A file of prompts: one on each line, or JSON Lines.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file; JSON Lines if it ends in .jsonl.")
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Completions of each prompt.")] = 1,
    *,
    sampling: Sampling,
    beams: Annotated[
        int | None, typer.Option("--beams", help="Look for the likeliest text with so many beams.")
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option("--choice", help="Write one of these texts; repeat it for each.")
    ] = None,
    valid_json: Annotated[bool, typer.Option("--valid-json", help="Write nothing but a JSON object or array.")] = False,
    logprobs: Annotated[
        int | None,
        typer.Option("--logprobs", min=0, help="In JSON, each token's log-probability, and so many alternatives."),
    ] = None,
    seed: Seed = 0,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Write text with a model: a new document, or the continuation of a prompt.

    Examples:

        tinytale generate

        tinytale generate --prompt "Once upon a time" -n 3

        tinytale generate my-run --prompt "The fox" --temperature 0

        tinytale generate --prompts-file prompts.txt --output tales.jsonl

        tinytale generate --prompt "The fox was" --choice " red" --choice " brown" --json --logprobs 3
    """

    from .settings import read_prompts, with_options
    from .terminal import plain_warnings, say

    _check(prompts_file, output, beams, logprobs, sampling, json)
    prompts = [_standard_input() if text == "-" else text for text in prompt or []]
    prompts += read_prompts(prompts_file) if prompts_file else []
    loaded = load_model(model, adapter, runs)
    if loaded.note:
        say(loaded.note)
    loaded.settings = with_options(loaded.settings, **sampling.given(), beams=beams)
    how = {"seed": seed, "logprobs": logprobs, "choices": choice or None, "json": valid_json}
    with plain_warnings():
        if output is not None:
            _to_file(output, loaded, prompts or [""], count, how, json)
        elif json:
            _as_json(loaded, prompts or [""], count, how)
        else:
            _on_screen(loaded, prompts or [""], count, how)


def _check(
    prompts_file: Path | None,
    output: Path | None,
    beams: int | None,
    logprobs: int | None,
    sampling: Sampling,
    json: bool,
) -> None:
    """Raises UserError for options of which one would be ignored, or would destroy what the other reads."""
    if prompts_file and output and output.exists() and output.samefile(prompts_file):
        raise UserError(f"{output} holds the prompts; give --output another name")
    if logprobs is not None and not json and (output is None or output.suffix not in LINES):
        raise UserError("--logprobs are shown in JSON alone: add --json, or --output FILE.jsonl")
    if beams is not None and beams > 1:
        drawing = [f"--{name.replace('_', '-')}" for name in DRAWING if getattr(sampling, name)]
        if ignored := [*drawing, *(["--logprobs"] if logprobs is not None else [])]:
            raise UserError(f"--beams looks for the likeliest text and knows no {ignored[0]}; leave one of them out")


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise UserError("the standard input is not UTF-8 text") from None


def _on_screen(loaded: "Loaded", prompts: list[Any], count: int, how: dict[str, Any]) -> None:
    """Each prompt and what follows, as it comes."""
    from tinytale_mlx import stages

    clean = printable if sys.stdout.isatty() else str
    for place in itertools.product(range(len(prompts)), range(count)):
        prompt = prompts[place[0]]
        pieces = stages.stream(loaded, prompt, place=place, **how)
        for piece in itertools.chain([prompt] if isinstance(prompt, str) else [], pieces, ["\n\n"]):
            print(clean(piece), end="", flush=True)


def _as_json(loaded: "Loaded", prompts: list[Any], count: int, how: dict[str, Any]) -> None:
    started = time.perf_counter()
    found = list(_completions(loaded, prompts, count, how))
    seconds = time.perf_counter() - started
    print_json(
        {
            "completions": [one.to_json() for _, one in found],
            "tokens_per_second": sum(len(one.tokens) for _, one in found) / seconds,
        }
    )


def _to_file(path: Path, loaded: "Loaded", prompts: list[Any], count: int, how: dict[str, Any], json: bool) -> None:
    """As they are finished, so that what is written is not lost; the figures on stderr, or as JSON."""
    lines = path.suffix in LINES
    started, done, tokens = time.perf_counter(), 0, 0
    with disk.writing("the completions", path), path.open("w", encoding="utf-8") as file:
        for prompt, one in _completions(loaded, prompts, count, how):
            row = {"prompt" if isinstance(prompt, str) else "messages": prompt, **one.to_json()}
            said = prompt if isinstance(prompt, str) else ""
            file.write(json_module.dumps(row, ensure_ascii=False) + "\n" if lines else f"{said}{one.text}\n\n")
            file.flush()
            done, tokens = done + 1, tokens + len(one.tokens)
    rate = tokens / (time.perf_counter() - started)
    if json:
        print_json({"output": str(path), "completions": done, "tokens": tokens, "tokens_per_second": rate})
    else:
        print(f"{done:,} completions, {tokens:,} tokens, {rate:,.0f} tokens/s: {path}", file=sys.stderr)


def _completions(
    loaded: "Loaded", prompts: list[Any], count: int, how: dict[str, Any]
) -> Iterator[tuple[Any, "Completion"]]:
    """Each prompt with each of its completions."""
    from tinytale_mlx import stages

    for first in range(0, len(prompts), TOGETHER):
        some = prompts[first : first + TOGETHER]
        for prompt, found in zip(
            some, stages.generate_all(loaded, some, samples=count, first=first, **how), strict=True
        ):
            for one in found:
                yield prompt, one
