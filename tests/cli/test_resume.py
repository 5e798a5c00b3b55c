"""Whatever happens to a training, it ends with the weights of one to which nothing happened."""

import hashlib
import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from killing import Start, deadly, finish, wait_for

pytestmark = pytest.mark.slow

DISK, CHECKPOINT_FILES = "tinytale_mlx.disk", "tinytale_mlx.training.checkpoint_files"
MODEL = "tinytale_mlx.interop.huggingface"
# Where a process kills itself, in which call. The next one goes on with the run and dies elsewhere.
DEATHS = [
    ("tinytale_mlx.tokenizers.base", "write_json", 2, "with half of the tokenizer"),
    ("tinytale_mlx.data.shards", "_put", 3, "with half of the shards"),
    ("tinytale_mlx.training.loop", "learning_rate", 4, "before the first checkpoint"),
    (DISK, "flush", 3, "during the first save"),
    (DISK, "flush", 10, "during the second save, with one checkpoint"),
    (CHECKPOINT_FILES, "_delete", 1, "before the oldest checkpoint is deleted"),
    ("tinytale_mlx.stages.scoring", "evaluate", 1, "before a validation"),
    (DISK, "flush", 13, "after the last checkpoint has its name"),
    (MODEL, "generation_json", 1, "while the finished model is written"),
    (DISK, "replace_folder", 1, "before the finished model has its name"),
]


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of everything that was learned."""
    files = ["model/model.safetensors"]
    files += [f"checkpoints/step-000024/{part}.safetensors" for part in ("model", "optimizer")]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def check_whole(run: Path) -> None:
    """Finished, nothing half written is left, and every line of the log is whole."""
    assert not list(run.rglob("*.tmp"))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000020", "step-000024"]
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "end"
    assert events[-1]["status"] == "finished"


@pytest.fixture(scope="module")
def undisturbed(finished: tuple[Path, object]) -> dict[str, str]:
    return weights(finished[0] / "runs" / "nano")


def test_killed_again_and_again(nano: Path, start: Start, undisturbed: dict[str, str]) -> None:
    train = ["train", nano, "--name", "cat"]
    run = nano.parent / "runs" / "cat"
    for number, (module, name, call, when) in enumerate(DEATHS):
        resume = ["--resume"] if number else []
        process = start(*train, *resume, cwd=nano.parent, before=deadly(module, name, call))
        said = finish(process)
        assert process.returncode == -signal.SIGKILL, f"{when}: {said}"
        if "during" in when:
            assert list(run.glob("checkpoints/.step-*.tmp")), when
    process = start(*train, "--resume", cwd=nano.parent)
    assert process.wait(120) == 0, finish(process)
    check_whole(run)
    assert weights(run) == undisturbed


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(seed: int, nano: Path, start: Start, undisturbed: dict[str, str]) -> None:
    dice = random.Random(seed)
    run = nano.parent / "runs" / "cat"
    process = start("train", nano, "--name", "cat", cwd=nano.parent)
    wait_for(process, "preparing")
    for _ in range(2):
        time.sleep(dice.random() * 0.8)
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
        process = start("train", "--resume", "--name", "cat", cwd=nano.parent)
        wait_for(process, "parameters")
    finish(process)
    assert process.returncode == 0
    check_whole(run)
    assert weights(run) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_while_training(number: int, nano: Path, start: Start, undisturbed: dict[str, str]) -> None:
    """Finishes the step, saves, and says how to go on; and that command does."""
    slow = "import time, tinytale_mlx.training.loop as l; r = l.learning_rate\n"
    slow += "l.learning_rate = lambda *a: (time.sleep(0.05), r(*a))[1]"
    process = start("train", nano, "--runs", "my runs", cwd=nano.parent, before=slow)
    wait_for(process, r"step +7 ")
    os.killpg(process.pid, number)
    said = finish(process)
    assert process.returncode == 128 + number, said
    assert "finishing the step and saving" in said
    step = int(re.search(r"saved at step (\d+); go on with:", said)[1])  # type: ignore[index]
    run = nano.parent / "my runs" / "nano"
    assert [path.name for path in (run / "checkpoints").iterdir() if int(path.name[5:]) == step]
    assert (run / "model" / "config.json").is_file()
    command = said.rstrip("\n").rpartition("\n")[2].strip()
    assert command == "tinytale train --resume --name 'my runs/nano'"
    process = start("train", "--resume", "--name", "my runs/nano", cwd=nano.parent)
    assert f"going on from step {step}" in finish(process)
    assert process.returncode == 0
    assert weights(run) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_twice(number: int, nano: Path, start: Start) -> None:
    """The second time it does not wait for the step."""
    stuck = "import time, tinytale_mlx.training.loop as l; r = l.learning_rate\n"
    stuck += "l.learning_rate = lambda n, t: (print('at', n), time.sleep(100 if n == 7 else 0), r(n, t))[2]"
    process = start("train", nano, cwd=nano.parent, before=stuck)
    wait_for(process, "at 7")
    os.kill(process.pid, number)
    wait_for(process, "finishing the step and saving")
    os.kill(process.pid, number)
    finish(process)
    assert process.returncode == 128 + number
    assert [path.name for path in nano.parent.glob("runs/nano/checkpoints/*")] == ["step-000005"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_before_training(number: int, nano: Path, start: Start, tinytale) -> None:
    """Nothing is left, not even a changed `latest`."""
    assert tinytale("train", nano, "--name", "old", "--steps", "1").code == 0
    process = start("train", nano, "--set", "data.documents=100000", cwd=nano.parent)
    wait_for(process, "training the tokenizer")
    time.sleep(0.3)
    os.killpg(process.pid, number)
    said = finish(process)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert sorted({*os.listdir("runs")} - {".cache"}) == ["latest", "old"]
    assert os.readlink("runs/latest") == "old"


def test_stopped_while_kernels_are_compiled(nano: Path, start: Start) -> None:
    """Ctrl-C in a terminal ends MLX's compiler, too; that is no error of ours."""
    process = start("train", nano, cwd=nano.parent, env={"TMPDIR": str(nano.parent)})  # no kernels there yet
    said = wait_for(process, "parameters")
    deadline = time.monotonic() + 60
    while not list(nano.parent.glob("mlx/**/*.cpp")) and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() is None and "compiles kernels" not in (said := said + process.stdout.readline()):  # type: ignore[union-attr]
        process.kill()
        pytest.skip("nothing is compiled on this machine")
    os.killpg(process.pid, signal.SIGINT)
    said += finish(process)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not (nano.parent / "runs" / "nano").exists()


def test_two_trainings_in_one_run(nano: Path, start: Start, tinytale) -> None:
    assert tinytale("train", nano).code == 0
    stuck = "import time, tinytale_mlx.stages.session as t; t.run_corpus = lambda *a: time.sleep(100)"
    process = start("train", "--resume", cwd=nano.parent, before=stuck)
    wait_for(process, "preparing")
    said = f"tinytale: another process ({process.pid}) is training in runs/nano"
    assert tinytale("train", "--resume").complaint == said
    process.kill()
    finish(process)
    assert tinytale("train", "--resume").code == 0


def test_killed_before_its_recipe_was_written(nano: Path, start: Start, tinytale) -> None:
    before = deadly("tinytale_mlx.recipe_files", "dump", 1)
    process = start("train", nano, "--name", "cat", cwd=nano.parent, before=before)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert tinytale("train", nano, "--name", "cat", "--steps", "1").code == 0
