"""The run directory: names, `latest`, the lock, the log, and what a killed process leaves."""

import json
import math
import os
from pathlib import Path

import pytest

from tinytale_mlx import recipe_files, run
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import Recipe
from tinytale_mlx.run import Run


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(tmp_path)
    return recipe_files.load("tale")


@pytest.fixture
def started(recipe: Recipe) -> Run:
    this = run.new("cat", recipe)
    this.start(recipe)
    return this


def test_recipe_round_trip(started: Run, recipe: Recipe) -> None:
    assert started.recipe() == recipe
    assert started.exists()
    with pytest.raises(UserError, match="is not a run"):
        Run(Path("dog")).recipe()


def test_new_claims_a_name(recipe: Recipe) -> None:
    assert [run.new(None, recipe).name for _ in range(3)] == ["tale", "tale-2", "tale-3"]
    run.new("cat", recipe).start(recipe)
    with pytest.raises(UserError, match="the run runs/cat exists"):
        run.new("cat", recipe)


def test_name_that_a_killed_process_claimed(recipe: Recipe) -> None:
    """With no more than a lock in it the name is free again, unless that process still lives."""
    first = run.new("cat", recipe)
    first.lock()
    second = run.new("cat", recipe)
    with pytest.raises(UserError, match=rf"another process \({os.getpid()}\) is training in runs/cat"):
        second.lock()
    first.unlock()
    second.lock()


def test_find(started: Run, recipe: Recipe) -> None:
    assert run.find(None).path == run.find("cat").path == Path("runs/cat")
    assert run.find("runs/cat").path == Path("runs/cat")
    assert run.find(str(Path("runs/cat").absolute())).name == "cat"
    run.new("dog", recipe, Path("elsewhere")).start(recipe)
    assert run.find(None, Path("elsewhere")).path == Path("elsewhere/dog")
    with pytest.raises(UserError, match=r"there is no run dog .*; there are cat$"):
        run.find("dog")


def test_commands_that_name_a_run() -> None:
    assert Run(Path("runs/cat")).resume_command == "tinytale train --resume --name cat"
    assert Run(Path("my runs/cat")).resume_command == "tinytale train --resume --name 'my runs/cat'"


def test_latest(started: Run, recipe: Recipe) -> None:
    """A run that is discarded gives `latest` back."""
    second = run.new("dog", recipe)
    second.start(recipe)
    assert os.readlink("runs/latest") == "dog"
    second.discard()
    assert os.readlink("runs/latest") == "cat"
    started.discard()
    assert os.listdir("runs") == []


def test_latest_that_has_moved_on_stays(started: Run, recipe: Recipe) -> None:
    second = run.new("dog", recipe)
    second.start(recipe)
    started.discard()
    assert os.readlink("runs/latest") == "dog"


def test_log(started: Run) -> None:
    started.log({"event": "step", "loss": math.nan, "rate": math.inf, "text": "caf\u00e9", "step": 1})
    (line,) = started.log_path.read_text(encoding="utf-8").splitlines()
    event = json.loads(line)
    assert event.pop("time") > 1e9
    assert event == {"event": "step", "loss": None, "rate": None, "text": "caf\u00e9", "step": 1}


def test_start_clears_what_was_half_written(started: Run, recipe: Recipe) -> None:
    started.log({"event": "step"})
    with started.log_path.open("a") as file:
        file.write('{"event": "st')
    half = started.checkpoints / ".step-000005.tmp"
    half.mkdir(parents=True)
    (half / "model.safetensors").touch()
    (started.data / "deep").mkdir(parents=True)
    (started.data / "deep" / "train.bin.tmp").touch()
    kept = started.path / "samples.txt"
    kept.touch()
    started.start(recipe)
    assert not list(started.path.rglob("*.tmp"))
    assert started.log_path.read_text().count("\n") == 1
    assert kept.exists()


def test_unwritable(started: Run) -> None:
    started.log_path.mkdir()
    with pytest.raises(UserError, match=r"log\.jsonl could not be written: is a directory"):
        started.log({"event": "step"})
