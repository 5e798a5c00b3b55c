"""The README's commands exist, and say what the program understands."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from tinytale_mlx import recipe_files, stages
from tinytale_mlx.cli.app import app
from tinytale_mlx.models.parameters import count_parameters

TEXT = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("uv run tinytale ")
]


def options_of(line: str) -> tuple[str, dict[str, Any]]:
    """The command's name and its options, read as the program reads them, but not run."""
    name, *words = shlex.split(line, comments=True)[3:]
    commands: Any = typer.main.get_command(app)
    command = commands.commands[name]
    if hasattr(command, "commands"):
        second, *words = words
        name, command = f"{name} {second}", command.commands[second]
    return name, command.make_context(name, words).params


def test_there_are_commands():
    assert len(COMMANDS) > 10
    assert COMMANDS[0] == "uv run tinytale train"


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_understood(line: str):
    name, options = options_of(line)
    if name in ("train", "info"):  # what they would train or describe can be built
        recipe = recipe_files.load(options.get("recipe") or options.get("what") or "tale", options["set_"])
        assert count_parameters(stages.blueprint(recipe)) > 0


def test_the_table_of_commands_is_complete():
    commands: Any = typer.main.get_command(app)
    assert set(re.findall(r"^\| `tinytale (\w+)", TEXT, re.MULTILINE)) == set(commands.commands)


@pytest.mark.parametrize(("name", "count"), re.findall(r"^\| `([\w-]+)` \| ([\d,]+) \|", TEXT, re.MULTILINE))
def test_the_table_of_recipes_counts_right(name: str, count: str):
    model = stages.blueprint(recipe_files.load(name))
    assert f"{count_parameters(model):,}" == count
