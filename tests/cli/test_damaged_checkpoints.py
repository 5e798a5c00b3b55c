"""A disk that lost a bit, a file or its room, and a clock that goes backwards: what it costs and what is said."""

import contextlib
import io
import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tinytale_mlx.cli.app import main
from tinytale_mlx.training import checkpoint_files

SHORT = ("--steps", "6", "--set", "train.validate_every=6")  # with checkpoints of 5 and 6
NEWEST = Path("runs/nano/checkpoints/step-000006")


def sums() -> dict[str, str]:
    files = [*NEWEST.glob("*.safetensors"), Path("runs/nano/model/model.safetensors")]
    return {file.name: checkpoint_files.checksum(file) for file in files}


def flip(file: Path) -> None:
    """One bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: os.truncate(file, 0),
    "flipped": flip,
    "gone": Path.unlink,
}


@pytest.fixture(scope="module")
def trained_once(finished: tuple[Path, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copy(finished[0] / "nano.yaml", folder)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as end:
        main(["train", "nano.yaml", *SHORT])
    assert not end.value.code
    return folder


@pytest.fixture(autouse=True)
def _run(nano: Path, trained_once: Path) -> None:
    """A copy of a run of 6 steps, which may be changed."""
    shutil.copytree(trained_once / "runs", "runs", symlinks=True)


@pytest.mark.parametrize("part", ["model.safetensors", "optimizer.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_the_one_before_is_used(part: str, damage: str, tinytale: Callable) -> None:
    whole = sums()
    DAMAGE[damage](NEWEST / part)
    resumed = tinytale("train", "--resume")
    assert resumed.code == 0, resumed.err
    why = "is missing" if damage == "gone" else "does not match its checksum"
    if part == "checksums.json":  # then it is another file that does not match, or none can be looked up
        why = why if damage == "gone" else "can't be read"
    if (part, damage) != ("checksums.json", "flipped"):
        assert f" is damaged ({part} {why}); it is now " in resumed.err
    assert resumed.err.startswith(f"tinytale: the checkpoint {NEWEST} is damaged (")
    assert resumed.err.endswith("; it is now called damaged-step-000006, and training goes on from step 5\n")
    assert resumed.err.count("\n") == 1
    assert "going on from step 5" in resumed.out
    assert sums() == whole
    assert "all 6 steps are done already" in tinytale("train", "--resume").out


def test_all_are_damaged(tinytale: Callable) -> None:
    for path in checkpoint_files.all_checkpoints(NEWEST.parent):
        flip(path / "model.safetensors")
    told = f"tinytale: the checkpoint {NEWEST} is damaged (model.safetensors does not match its checksum)"
    assert tinytale("train", "--resume").complaint == (
        f"{told}, and there is none before it that is whole; start a new run"
    )
    assert tinytale("train", "--branch", "other").complaint.startswith(
        "tinytale: the checkpoint runs/nano/checkpoints/"
    )
    shutil.rmtree("runs/nano/model")
    assert tinytale("generate").complaint == told


def test_a_branch_from_the_one_before(tinytale: Callable) -> None:
    """The parent's damaged checkpoint stays where it is: it is not the branch's to touch."""
    flip(NEWEST / "model.safetensors")
    result = tinytale("train", "--branch", "other", "--learning-rate", "1e-3")
    assert result.code == 0, result.err
    assert "is damaged (model.safetensors does not match its checksum); the one before it is used" in result.err
    assert "going on from step 5" in result.out
    assert NEWEST.is_dir()


def test_a_clock_that_goes_backwards(tinytale: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ordered by time: neither the checkpoints nor which is the newest."""
    whole = sums()
    shutil.rmtree(NEWEST)
    past = itertools.count(time.time() - 1e6, -3600)
    monkeypatch.setattr(time, "time", lambda: next(past))
    for number, path in enumerate(checkpoint_files.all_checkpoints(NEWEST.parent)):
        os.utime(path, (1e9 - number, 1e9 - number))
    resumed = tinytale("train", "--resume")
    assert resumed.code == 0, resumed.err
    assert sums() == whole
