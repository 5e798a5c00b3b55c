"""`tinytale eval`, `info` and `recipes`; and what all commands have in common."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinytale_mlx import recipe_files


# ---------------------------------------------------------------------- eval
def test_eval(trained: Path, finished, tinytale) -> None:
    """The run's own figures, from its model."""
    result = tinytale("eval", "--json").json
    trained_with = finished[1].json
    assert set(result) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"}
    assert result["loss"] == pytest.approx(trained_with["val_loss"])
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    assert result["bits_per_byte"] == pytest.approx(trained_with["val_bits_per_byte"])
    assert result["tokens"] == 2 * 4 * 32  # two batches, as the recipe says
    assert f"loss {result['loss']:.4f} nats per token" in tinytale("eval", "nano").out


def test_eval_of_a_text(trained: Path, tmp_path: Path, tinytale) -> None:
    text = "One day, a fox went home.\n" * 10
    (tmp_path / "a.txt").write_text(text)
    result = tinytale("eval", "--data", tmp_path / "a.txt", "--json").json
    assert result["bytes"] == len(text)
    nats = result["bits_per_byte"] * result["bytes"] * math.log(2)
    assert nats == pytest.approx(result["loss"] * result["tokens"])
    assert tinytale("eval", "runs/nano/model", "--data", tmp_path / "a.txt", "--json").json == result
    (tmp_path / "b.txt").write_text(text)
    twice = tinytale("eval", "-d", tmp_path / "a.txt", "-d", tmp_path / "b.txt", "--json").json
    assert twice["bytes"] == 2 * len(text)


# ---------------------------------------------------------------------- info
def test_info_of_a_recipe(tinytale) -> None:
    result = tinytale("info", "tiny-tale", "--json").json
    assert {"parameters", "trainable_parameters", "layout", "context", "vocab_size"} <= set(result)
    assert result["parameters"] == result["trainable_parameters"]
    assert result["recipe"] == "tiny-tale"
    smaller = tinytale("info", "tiny-tale", "--set", "model.layers=1", "--json").json
    assert smaller["layers"] == 1
    assert smaller["parameters"] < result["parameters"]


@pytest.mark.parametrize("what", ["nano.yaml", "nano", "runs/nano", "runs/nano/model", None])
def test_info_of_everything_else(what: str | None, trained: Path, tinytale) -> None:
    arguments = [what] if what else []
    assert tinytale("info", *arguments, "--json").json["parameters"] == 37024
    said = tinytale("info", *arguments).out
    assert re.search(r" parameters +37,024\n", said)
    assert re.search(r"model\.layers\.\*\.self_attn\.q_proj\.weight +32 x 32 +2 +2,048", said)


def test_info_adds_up(trained: Path, tinytale) -> None:
    table = tinytale("info").out.partition("numbers")[2]
    assert sum(int(line.split()[-1].replace(",", "")) for line in table.splitlines() if line.strip()) == 37024


def test_info_names_what_no_other_program_can_read(tinytale) -> None:
    result = tinytale("info", "tiny-tale", "--set", "model.positions=alibi", "--json").json
    assert result["layout"] == "own"
    assert "rotary positions only" in result["layout_note"]


# ---------------------------------------------------------------------- recipes
def test_recipes(tinytale) -> None:
    result = tinytale("recipes", "--json").json["recipes"]
    assert sorted(result) == recipe_files.names()
    assert all(one["parameters"] > 0 and one["description"] for one in result.values())
    said = tinytale("recipes").out
    assert all(name in said for name in recipe_files.names())


# ---------------------------------------------------------------------- all commands
def test_help_is_quick() -> None:
    """`tinytale -h` loads neither MLX nor any of the heavy libraries."""
    program = (
        "import sys; from tinytale_mlx.cli.app import main\n"
        "try: main(['-h'])\n"
        "except SystemExit: print([m for m in ('mlx.core', 'mlx_lm', 'datasets', 'numpy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.rstrip().endswith("[]")
