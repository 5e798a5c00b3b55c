"""Options that several commands share, and how they print JSON."""

import functools
import inspect
import json
import math
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tinytale_mlx.stages import Loaded

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Runs = Annotated[Path, typer.Option("--runs", help="The folder that holds the runs.", envvar="TINYTALE_RUNS")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any key of the recipe, such as train.steps=500."),
]
Name = Annotated[str | None, typer.Option("--name", "-n", help="Name of the run. Default: the recipe's.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run --name, or with the latest, from its last checkpoint.")
]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", help="The highest rate.")]
Force = Annotated[bool, typer.Option("--force", help="Try it even if it will not fit into memory.")]
Wandb = Annotated[
    str | None, typer.Option("--wandb", metavar="PROJECT", help="Log to Weights & Biases as well (an extra).")
]
WandbModel = Annotated[bool, typer.Option("--wandb-model", help="With --wandb: upload the model, too.")]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Log for TensorBoard as well, in the run's folder (an extra).")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same text.")]
Model = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run, by name or path, or a model directory. Default: the latest run."),
]
Adapter = Annotated[
    str | None,
    typer.Option("--adapter", help="Put this adapter on: a run of `tinytale finetune`, or a directory (mlx-lm, PEFT)."),
]
Temperature = Annotated[float | None, typer.Option("--temperature", "-t", help="0 is greedy. Default: the recipe's.")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Choose among the k likeliest tokens; 0 for all.")]
TopP = Annotated[float | None, typer.Option("--top-p", help="Choose among the likeliest tokens that sum to p.")]
MinP = Annotated[float | None, typer.Option("--min-p", help="Leave out what is less than this share of the likeliest.")]
RepetitionPenalty = Annotated[
    float | None, typer.Option("--repetition-penalty", help="Above 1, what is there already becomes less likely.")
]
MaxNewTokens = Annotated[int | None, typer.Option("--max-new-tokens", "-m", help="Stop after so many tokens.")]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", help="Stop before this text; repeat it for several."),
]
SetSampling = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other key of the recipe's `generate`, as no_repeat_ngram=3."),
]
SAMPLING: dict[str, Any] = {
    "temperature": Temperature,
    "top_k": TopK,
    "top_p": TopP,
    "min_p": MinP,
    "repetition_penalty": RepetitionPenalty,
    "max_new_tokens": MaxNewTokens,
    "stop": Stop,
    "overrides": SetSampling,
}
Sampling = dict[str, Any]
"""What was given of these; `settings.with_options` lays it over a model's own settings."""


def with_sampling(command: Callable[..., None]) -> Callable[..., None]:
    """The command with all options of SAMPLING instead of its keyword `sampling`, in which it finds those given."""

    @functools.wraps(command)
    def called(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in SAMPLING}
        command(**given, sampling={name: value for name, value in chosen.items() if value not in (None, [])})

    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in SAMPLING.items()
    ]
    signature = inspect.signature(command, eval_str=True)  # which is what Typer makes its options from
    own = list(signature.parameters.values())
    place = list(signature.parameters).index("sampling")
    called.__dict__["__signature__"] = signature.replace(parameters=[*own[:place], *options, *own[place + 1 :]])
    return called


def load_model(model: str | None, adapter: str | None, runs: Path) -> "Loaded":
    """The model, with the adapter on where one is given."""
    from tinytale_mlx import stages

    return stages.load_with_adapter(model, adapter, runs)[0] if adapter else stages.load(model, runs)


def own_text(data: list[str] | None) -> list[str]:
    """The overrides of a recipe that `--data` stands for: this text instead of the recipe's, all of it."""
    if not data:
        return []
    source = json.dumps(data[0] if len(data) == 1 else data)
    return [f"data.source={source}", "data.documents=null", "data.validation_source=null"]


def print_json(content: dict[str, Any]) -> None:
    readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps({key: _plain(value) for key, value in content.items()}, ensure_ascii=not readable))


def _plain(value: Any) -> Any:
    """JSON knows no infinity and no not-a-number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    """Text of a model for a terminal: control characters, which could steer it, become U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)


def size(count: float) -> str:
    """17306496 as 17.3M."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:.0f}"


def duration(seconds: float) -> str:
    """754 as 12:34, 7540 as 2:05:40."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
