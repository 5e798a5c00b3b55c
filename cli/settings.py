"""Sampling options of the command line, laid over a model's own; and where prompts come from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import GenerateRecipe
from tinytale_mlx.recipe_files import parse_yaml


def with_options(settings: GenerateRecipe, overrides: list[str] | None = None, **options: Any) -> GenerateRecipe:
    """The settings with those options that were given. Raises UserError for a value out of range."""
    from tinytale_mlx.stages import with_settings

    settings = with_settings(settings, dict(map(_key_and_value, overrides or [])))
    return with_settings(settings, {name: value for name, value in options.items() if value is not None}, prefix="--")


def _key_and_value(override: str) -> tuple[str, Any]:
    key, equals, value = override.partition("=")
    if not equals:
        raise UserError(f"--set takes KEY=VALUE, such as no_repeat_ngram=3, not {override!r}")
    try:
        return key.strip().removeprefix("generate."), parse_yaml(value)
    except yaml.YAMLError:
        return key.strip().removeprefix("generate."), value


def read_prompts(path: Path) -> list[Any]:
    """The prompts of a file: one on each line, or, of a .jsonl, its `prompt` or `messages` or the line's own text.

    Raises UserError for a file that can't be read or holds no prompt, with the number of the line at fault.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    found = list(_json_prompts(path, lines)) if path.suffix in (".jsonl", ".ndjson") else [line for _, line in lines]
    if not found:
        raise UserError(f"{path} holds no prompt")
    return found


def _json_prompts(path: Path, lines: list[tuple[int, str]]) -> Iterator[Any]:
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            raise UserError(f"{path}, line {number}: this is not JSON") from None
        prompt = row.get("prompt", row.get("messages")) if isinstance(row, dict) else row
        if not isinstance(prompt, str) and not _are_messages(prompt):
            raise UserError(f'{path}, line {number}: there is no "prompt" and there are no "messages"')
        yield prompt


def _are_messages(value: Any) -> bool:
    """Whether they look like messages; what is in them, the template checks."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
