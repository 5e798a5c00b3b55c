"""The command line's commands, arguments and options: what people have in their scripts and fingers.

Adding to it means adding here. Taking away from it means that somebody's script breaks.
"""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from tinytale_mlx import recipe_files
from tinytale_mlx.benchmarks import NAMES
from tinytale_mlx.cli.app import app

SAMPLING = {
    "--temperature -t", "--top-k", "--top-p", "--min-p", "--repetition-penalty", "--max-new-tokens -m", "--stop",
    "--set", "--seed",
}  # fmt: skip
ALIGN = {
    "base", "--data -d", "--lora", "--qlora", "--full", "--rank", "--name -n", "--resume", "--steps", "--batch-size",
    "--learning-rate", "--seed", "--force", "--set", "--wandb", "--wandb-model", "--tensorboard", "--runs", "--json",
}  # fmt: skip
SURFACE = {
    "train": {
        "recipe", "--data -d", "--name -n", "--resume", "--branch", "--from-step", "--init-from", "--steps",
        "--batch-size", "--learning-rate", "--retrain", "--force", "--seed", "--set",
        "--wandb", "--wandb-model", "--tensorboard", "--runs", "--json",
    },
    "chat": {"model", "--adapter", "--system", "--show-probabilities", *SAMPLING, "--runs"},
    "generate": {
        "model", "--adapter", "--prompt -p", "--prompts-file -f", "--output -o", "-n --count", "--beams", "--choice",
        "--valid-json", "--logprobs", *SAMPLING, "--runs", "--json",
    },
    "eval": {"model", "--adapter", "--data -d", "--runs", "--json"},
    "finetune": {
        "base", "--data -d", "--lora", "--qlora", "--dora", "--prompt-tuning", "--prefix", "--full", "--rank",
        "--template", "--name -n", "--resume", "--steps", "--batch-size", "--learning-rate", "--seed", "--force",
        "--set", "--wandb", "--wandb-model", "--tensorboard", "--runs", "--json",
    },
    "fuse": {"model", "--output -o", "--adapter", "--dequantize", "--runs", "--json"},
    "quantize": {
        "model", "--output -o", "--bits", "--group-size", "--mode", "--budget", "--data -d", "--runs", "--json",
    },
    "export": {"model", "--to", "--output -o", "--adapter", "--dtype", "--dequantize", "--runs", "--json"},
    "log": {"name", "--csv", "--runs", "--json"},
    "report": {"name", "--output -o", "--runs", "--json"},
    "plan": {"recipe", "--chip", "--finetune", "--set", "--runs", "--json"},
    "info": {"what", "--set", "--runs", "--json"},
    "recipes": {"--json"},
    "doctor": {"--runs", "--json"},
    "rlhf reward": ALIGN,
    "rlhf ppo": {*ALIGN, "--reward-model", "--reward", "--beta", "--kl-target"},
    "rlhf dpo": {*ALIGN, "--reward-model", "--reward", "--beta", "--method"},
    "rlhf grpo": {*ALIGN, "--reward-model", "--reward", "--beta", "--method", "--group-size"},
    "tokenizer train": {
        "recipe", "--data -d", "--vocab-size", "--kind", "--output -o", "--set", "--retrain", "--workers", "--runs",
        "--json",
    },
    "tokenizer encode": {"words", "--file -f", "--pieces", "--special", "--runs", "--json"},
    "tokenizer decode": {"words", "--pieces", "--special", "--runs", "--json"},
    "tokenizer inspect": {"tokenizer", "--data -d", "--text -t", "--compare", "--runs", "--json"},
    "tokenizer add": {"model", "--token", "--output -o", "--runs", "--json"},
    "data prepare": {"recipe", "--data -d", "--set", "--workers", "--runs", "--json"},
    "data show": {"recipe", "--data -d", "-n --count", "--template", "--set", "--runs", "--json"},
    "bench all": {"--quick", "--peers", "--out", "--json"},
    "bench compare": {"first", "second", "--out"},
    **{f"bench {name}": set() for name in NAMES},  # their own: tests/benchmarks/test_benchmark_options.py
}  # fmt: skip


def commands_of(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """(name, command), where a command of a group is called by both names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{before}{name} ")
        else:
            yield before + name, command


COMMANDS = dict(commands_of(typer.main.get_command(app)))
GROUPS = sorted({name.split()[0] for name in SURFACE if " " in name})


def test_commands_in_the_order_in_which_one_meets_them() -> None:
    assert list(COMMANDS) == list(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_options(name: str) -> None:
    found = {" ".join(one.opts) for one in COMMANDS[name].params if "--help" not in one.opts}
    assert found == SURFACE[name]


@pytest.mark.parametrize("name", [*SURFACE, *GROUPS])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(name: str, flag: str, tinytale) -> None:
    result = tinytale(*name.split(), flag)
    assert result.code == 0
    assert result.err == ""
    assert "Usage: " in result.out


def examples() -> list[tuple[str, str]]:
    """(the command that shows it, the line); of a pipe, each command."""
    lines = ((name, line.strip()) for name, one in COMMANDS.items() for line in (one.help or "").splitlines())
    return [(name, part) for name, line in lines if line.startswith("tinytale ") for part in line.split(" | ")]


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """The command that a line calls, and its parameters."""
    words = shlex.split(line)[1:]
    name = " ".join(words[: 2 if words[0] in GROUPS else 1])
    return name, COMMANDS[name].make_context(name, words[len(name.split()) :]).params


def test_there_are_examples() -> None:
    assert {parsed(line)[0] for _, line in examples()} == set(SURFACE)
    assert {name for name, line in examples() if parsed(line)[0] == name} == set(SURFACE)


@pytest.mark.parametrize("line", [line for _, line in examples()])
def test_examples_are_real(line: str) -> None:
    """They parse, and the recipes and keys in them exist."""
    _, given = parsed(line)
    recipe = given.get("recipe") or given.get("what")
    if recipe or given.get("set_"):
        recipe_files.load(recipe or "tale", given.get("set_"))


def test_no_command_shows_help(tinytale) -> None:
    result = tinytale()
    assert "Start with" in result.out + result.err


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_shows_its_commands(group: str, tinytale) -> None:
    result = tinytale(group)
    for name in SURFACE:
        if name.startswith(f"{group} "):
            assert f" {name.split()[1]} " in result.out + result.err
