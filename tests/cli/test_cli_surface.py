"""The command line's commands, arguments and options: what people have in their scripts and fingers.

Adding to it means adding here. Taking away from it means that somebody's script breaks.
"""

import shlex

import pytest
import typer

from tinytale_mlx import recipe_files
from tinytale_mlx.cli.app import app

SAMPLING = {"--temperature -t", "--top-k", "--top-p", "--max-new-tokens -m", "--seed"}
SURFACE = {
    "train": {
        "recipe", "--data -d", "--name -n", "--resume", "--steps", "--batch-size", "--learning-rate", "--seed",
        "--set", "--wandb", "--runs", "--json",
    },
    "chat": {"model", *SAMPLING, "--runs"},
    "generate": {"model", "--prompt -p", "-n --count", *SAMPLING, "--runs", "--json"},
    "eval": {"model", "--data -d", "--runs", "--json"},
    "info": {"what", "--set", "--runs", "--json"},
    "recipes": {"--json"},
}  # fmt: skip
GROUP = typer.main.get_command(app)
COMMANDS = GROUP.commands  # type: ignore[attr-defined]


def test_commands_in_the_order_in_which_one_meets_them() -> None:
    assert list(COMMANDS) == list(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_options(name: str) -> None:
    found = {" ".join(one.opts) for one in COMMANDS[name].params if "--help" not in one.opts}
    assert found == SURFACE[name]


@pytest.mark.parametrize("name", SURFACE)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(name: str, flag: str, tinytale) -> None:
    result = tinytale(name, flag)
    assert result.code == 0
    assert result.err == ""
    assert "Usage: " in result.out


def examples() -> list[str]:
    lines = (line.strip() for command in COMMANDS.values() for line in (command.help or "").splitlines())
    return [line for line in lines if line.startswith("tinytale ")]


def test_there_are_examples() -> None:
    assert {shlex.split(line)[1] for line in examples()} == set(SURFACE)


@pytest.mark.parametrize("line", examples())
def test_examples_are_real(line: str) -> None:
    """They parse, and the recipes and keys in them exist."""
    _, name, *arguments = shlex.split(line)
    given = COMMANDS[name].make_context(name, arguments).params
    recipe = given.get("recipe") or given.get("what")
    if recipe or given.get("set_"):
        recipe_files.load(recipe or "tale", given.get("set_"))


def test_no_command_shows_help(tinytale) -> None:
    result = tinytale()
    assert "Start with" in result.out + result.err
