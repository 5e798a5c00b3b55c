"""Options that several commands share, and how they print JSON."""

import json
import math
import sys
import unicodedata
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
Name = Annotated[
    str | None, typer.Option("--name", "-n", help="Name of the run. Default: the recipe's, or MODEL-METHOD.")
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


def load_model(model: str | None, adapter: str | None, runs: Path) -> "Loaded":
    """The model, with the adapter on where one is given."""
    from tinytale_mlx import stages

    return stages.load_with_adapter(model, adapter, runs)[0] if adapter else stages.load(model, runs)


def own_text(data: list[str] | None) -> list[str]:
    """The overrides of a recipe that `--data` stands for: this text instead of the recipe's, all of it."""
    if not data:
        return []
    return [*own_rows(data), "data.documents=null", "data.validation_source=null"]


def own_rows(data: list[str] | None) -> list[str]:
    """The override that `--data` stands for, where rows are learned from."""
    return [f"data.source={json.dumps(data[0] if len(data) == 1 else data)}"] if data else []


def print_json(content: dict[str, Any]) -> None:
    readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps({key: _plain(value) for key, value in content.items()}, ensure_ascii=not readable))


def _plain(value: Any) -> Any:
    """JSON knows no infinity and no not-a-number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    """Text of a model for a terminal: control characters, which could steer it, become U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)
