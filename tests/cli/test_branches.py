"""What may change when a run goes on, what makes another run of it, and what makes no sense."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tinytale_mlx.cli.app import main
from tinytale_mlx.recipe_files import load
from tinytale_mlx.training import checkpoint_files

SHORT = ("--steps", "8", "--set", "train.save_every=4", "--set", "train.validate_every=4")
CONSTANT = ("--set", "train.schedule=constant")


def sums(run: str) -> dict[str, str]:
    """SHA-256 of what was learned."""
    files = Path("runs", run).glob("checkpoints/step-000008/*.safetensors")
    return {file.name: checkpoint_files.checksum(file) for file in files}


def steps(run: str) -> list[int]:
    return sorted(map(checkpoint_files.step_of, Path("runs", run, "checkpoints").iterdir()))


def events(run: str, kind: str) -> list[dict]:
    lines = (json.loads(line) for line in Path("runs", run, "log.jsonl").read_text().splitlines())
    return [event for event in lines if event["event"] == kind]


@pytest.fixture(scope="module")
def trained_once(finished: tuple[Path, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 8 steps and its checkpoints of 4 and 8."""
    folder = tmp_path_factory.mktemp("branches")
    shutil.copy(finished[0] / "nano.yaml", folder)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as end:
        main(["train", "nano.yaml", *SHORT, *CONSTANT, "--name", "cat"])
    assert not end.value.code
    return folder


@pytest.fixture
def parent(nano: Path, trained_once: Path) -> Path:
    """A copy of it, which may be changed."""
    shutil.copytree(trained_once / "runs", "runs", symlinks=True)
    return nano


# ---------------------------------------------------------------------- may change
@pytest.mark.parametrize(
    "change",
    [
        "train.log_every=3",
        "train.save_every=2",
        "train.validate_every=2",
        "train.keep_checkpoints=1",
        "train.keep_best=3",
        "generate.prompts=[A fox]",
        "train.final_model=best",
    ],
)
def test_what_leaves_the_steps_as_they_are(change: str, parent: Path, tinytale: Callable) -> None:
    whole = sums("cat")
    shutil.rmtree("runs/cat/checkpoints/step-000008")
    resumed = tinytale("train", "--resume", "--set", change)
    assert resumed.code == 0, resumed.err
    assert "going on from step 4" in resumed.out
    assert sums("cat") == whole
    key, value = change.split("=")
    assert load("runs/cat/recipe.yaml") == load("runs/cat/recipe.yaml", [f"{key}={value}"])  # it stays


@pytest.mark.parametrize("change", [CONSTANT, ("--set", "train.decay_steps=6")])
def test_more_steps_where_the_schedule_does_not_know_how_many(change: tuple, nano: Path, tinytale: Callable) -> None:
    assert tinytale("train", nano, *SHORT, *change, "--name", "whole").code == 0
    assert tinytale("train", nano, *SHORT, *change, "--steps", "5", "--name", "cat").code == 0
    resumed = tinytale("train", "--resume", "--name", "cat", "--steps", "8")
    assert resumed.code == 0, resumed.err
    assert "going on from step 5" in resumed.out
    assert sums("cat") == sums("whole")


@pytest.mark.parametrize("change", ["train.schedule=linear", "train.average_last=0.5"])
def test_not_where_it_does(change: str, nano: Path, tinytale: Callable) -> None:
    assert tinytale("train", nano, *SHORT, *CONSTANT, "--set", change, "--name", "cat").code == 0
    said = tinytale("train", "--resume", "--steps", "9").complaint
    assert "the run cat was started with another recipe (train.steps: 8 -> 9); resume it without changes, or" in said


# ---------------------------------------------------------------------- a branch
def test_a_branch_without_changes_is_the_run_itself(parent: Path, tinytale: Callable) -> None:
    shutil.rmtree("runs/.cache/tokenizers")
    result = tinytale("train", "--resume", "--branch", "twin", "--from-step", "4", "--json")
    assert result.code == 0, result.err
    assert result.json["run"] == "runs/twin"
    assert sums("twin") == sums("cat")
    assert steps("cat") == steps("twin") == [4, 8]
    (event,) = events("twin", "branch")
    assert (event["from"], event["step"], event["changes"]) == ("runs/cat", 4, [])
    assert os.readlink("runs/latest") == "twin"
    assert not Path("runs/.cache/tokenizers").exists()  # the tokenizer is the parent's
    shutil.rmtree("runs/cat")
    shutil.rmtree("runs/twin/checkpoints/step-000008")
    assert "going on from step 4" in tinytale("train", "--resume").out  # the branch stands alone


def test_a_branch_has_the_tokens_of_its_parent(nano: Path, tinytale: Callable) -> None:
    """Whatever has become of the text since."""
    Path("book.txt").write_text("The cat went home.\n\nThe dog stayed there all day long.\n\n" * 200)
    assert tinytale("train", nano, *SHORT, "--data", "book.txt", "--name", "cat").code == 0
    Path("book.txt").unlink()
    result = tinytale("train", "--branch", "calm", "--from-step", "4", "--learning-rate", "1e-4")
    assert result.code == 0, result.err


def test_a_branch_with_another_rate(parent: Path, tinytale: Callable) -> None:
    """From the newest checkpoint, and that of --name; the parent is as it was."""
    before = sums("cat")
    tinytale("train", parent, "--steps", "1", "--name", "dog")
    options = ["--name", "cat", "--branch", "calm", "--learning-rate", "1e-4", "--steps", "10"]
    result = tinytale("train", *options)
    assert result.code == 0, result.err
    assert "going on from step 8" in result.out
    (event,) = events("calm", "branch")
    assert event["changes"] == ["train.steps: 8 -> 10", "train.learning_rate: 0.003 -> 0.0001"]
    assert [one["step"] for one in events("calm", "step")] == [9, 10]
    assert {one["learning_rate"] for one in events("calm", "step")} == {1e-4}
    assert sums("cat") == before
    resumed = tinytale("train", "--resume", "--name", "calm")
    assert "all 10 steps are done already" in resumed.out


def test_a_branch_with_other_data(parent: Path, tinytale: Callable) -> None:
    Path("book.txt").write_text("The cat went home.\n\nThe dog stayed there all day long.\n\n" * 200)
    options = ["--branch", "book", "--data", "book.txt", "--steps", "9"]
    result = tinytale("train", *options)
    assert result.code == 0, result.err
    keys = [Path("runs", name, "data", "shards.json").read_text() for name in ("cat", "book")]
    assert keys[0] != keys[1]
    tokenizers = [Path("runs", name, "data", "tokenizer", "tokenizer.json").read_text() for name in ("cat", "book")]
    assert tokenizers[0] == tokenizers[1]


def test_a_run_that_diverged_goes_on_with_a_lower_rate(
    nano: Path, tinytale: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinytale_mlx.training import loop

    rate = loop.learning_rate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate", lambda step, train: 1e30 if step == 11 else rate(step, train))
        assert tinytale("train", nano, "--name", "wild").code == 2
    result = tinytale("train", "--resume", "--branch", "tame", "--learning-rate", "1e-3")
    assert result.code == 0, result.err
    assert "going on from step 10" in result.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--set", "model.sliding_window=8"], "the run cat don't fit the new recipe (model.sliding_window: None -> 8)"),
        (["--set", "tokenizer.vocab_size=300"], "fit the new recipe (tokenizer.vocab_size: 512 -> 300)"),
        (["--set", "train.optimizer=adamw"], "does not fit the recipe: in optimizer.safetensors "),
        (["--from-step", "5"], "the run cat has no checkpoint of step 5 to branch from; there are 4, 8"),
        (["--name", "dog"], "there is no run dog"),
        (["--branch", "cat"], "the run runs/cat exists"),
        (["--retrain"], "a run that is resumed keeps its tokenizer"),
        (["--init-from", "cat"], "--init-from is for a new run"),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value, list) else "",
)
def test_refused(options: list[str], told: str, parent: Path, tinytale: Callable) -> None:
    assert told in tinytale("train", "--branch", "new", *options).complaint
    assert sorted({*os.listdir("runs")} - {".cache"}) == ["cat", "latest"]
    assert os.readlink("runs/latest") == "cat"


def test_a_step_alone(parent: Path, tinytale: Callable) -> None:
    assert "--from-step goes with --branch NAME" in tinytale("train", "--resume", "--from-step", "4").complaint


def test_of_a_run_of_another_kind(parent: Path, tinytale: Callable) -> None:
    """Before any key is looked at, which would be one of a training."""
    short = ["--data", "identity", "--steps", "1", "--set", "data.too_long=truncate", "--json"]
    assert tinytale("finetune", "cat", *short, "--name", "tuned").code == 0
    said = tinytale("train", "--branch", "new", "--set", "model.layers=3").complaint
    assert "is the recipe of a `tinytale finetune`, and this needs that of a `tinytale train`" in said
    assert not Path("runs/new").exists()


def test_of_a_run_without_a_checkpoint(parent: Path, tinytale: Callable) -> None:
    shutil.rmtree("runs/cat/checkpoints")
    told = "tinytale: the run cat has no checkpoint to branch from"
    assert tinytale("train", "--branch", "new").complaint == told
