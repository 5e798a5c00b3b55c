"""`tinytale log`, and what training says about its speed and its batches."""

import csv
import io
from pathlib import Path

import pytest

from tinytale_mlx.recipe_files import load
from tinytale_mlx.stages import utilisation as module


def test_table(trained: Path, tinytale) -> None:
    lines = tinytale("log").out.splitlines()
    assert lines[0].split() == [
        "step",
        "loss",
        "validation",
        "perplexity",
        "rate",
        "gradient",
        "tokens/s",
        "memory",
        "time",
    ]
    assert len(lines) == 25
    assert lines[24].split()[0] == "24"


def test_csv_on_stdout_and_in_a_file(trained: Path, tinytale, tmp_path: Path) -> None:
    said = tinytale("log", "nano", "--csv", "-")
    file = tmp_path / "figures.csv"
    assert tinytale("log", "--csv", file).out == ""
    assert file.read_text() == said.out
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [int(row["step"]) for row in rows] == list(range(1, 25))
    assert [row["step"] for row in rows if row["val_loss"]] == ["10", "20", "24"]
    assert float(rows[0]["loss"]) == tinytale("log", "--json").json["rows"][0]["loss"]


def test_refusals(trained: Path, tinytale) -> None:
    assert "there is no run dog" in tinytale("log", "dog").complaint
    assert "could not be written" in tinytale("log", "--csv", "no/such/folder.csv").complaint


def test_what_training_says_at_the_start(nano: Path, tinytale) -> None:
    said = tinytale("train", nano, "--steps", "3", "--set", "train.sample_every=100").out
    assert "runs/nano: 37k parameters" in said
    assert "3 steps; effective batch 8 x context 32 = 256 tokens per step" in said
    second = next(line for line in said.splitlines() if line.startswith("step      2"))
    assert second.endswith(" left")
    assert "MB" in second


def test_stopped_early(nano: Path, tinytale) -> None:
    """With a rate so high that it gets worse; the samples come once, and the model is there."""
    keys = ["early_stopping=2", "learning_rate=3", "optimizer=lion", "validate_every=1", "sample_every=100", "steps=20"]
    said = tinytale("train", nano, *(word for key in keys for word in ("--set", f"train.{key}")))
    assert said.code == 0, said.err
    assert "stopped early at step " in said.out
    assert said.out.count("after ") == 1
    assert Path("runs/nano/model/config.json").is_file()
    again = tinytale("train", "--resume", "--json").json
    assert again["status"] == "stopped early"
    assert 3 <= again["steps"] < 20


# ---------------------------------------------------------------------- utilisation
REGISTRY = """
+-o AGXAcceleratorG14G  <class AGXAcceleratorG14G, id 0x1000>
      "gpu-core-count" = 8
"""


def test_utilisation_needs_a_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """An M2 with 8 cores: 8 x 128 x 2 x 1.398 GHz; of two of them, half. Without a GPU there is none."""
    monkeypatch.setattr(module.device, "on_gpu", lambda: True)
    monkeypatch.setattr(module.device, "describe", lambda: {"device": "Apple M2"})
    monkeypatch.setattr(module, "_registry", lambda: REGISTRY)
    assert module.gpu_peak() == pytest.approx(2.863e12, rel=1e-3)
    recipe = load("tale")
    one, two = (module.utilisation(recipe, 2048, processes)(1000.0) for processes in (1, 2))
    assert one is not None
    assert two is not None
    assert 0 < two == one / 2
    assert module.utilisation(recipe, 2048)(float("nan")) is None
    monkeypatch.setattr(module, "_registry", str)
    assert module.gpu_peak() is None
    monkeypatch.setattr(module.device, "describe", lambda: {"device": "Apple M9"})
    assert module.utilisation(recipe, 2048)(1000.0) is None
