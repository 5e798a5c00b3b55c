"""`mlx.launch -n 2 tinytale train`: one run, the same as that of one process, whatever happens to one of the two."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from ring import SECONDS, free_ports, killed_at_the_end, needs_ring, start

from tinytale_mlx import recipe_files
from tinytale_mlx.errors import UserError
from tinytale_mlx.stages import together

pytestmark = [needs_ring, pytest.mark.slow]

# Rows are documents, so that the rows of the one process have more tokens to learn from than those of the other.
RECIPE = """
name: nano
data: {source: tales, documents: 200, validation: 0.05, rows: documents}
tokenizer: {kind: bpe, vocab_size: 300}
model: {hidden_size: 32, layers: 2, heads: 2, intermediate_size: 64, context: 48}
train: {steps: 8, batch_size: 4, accumulate: 2, optimizer: muon, learning_rate: 3e-3, ema: 0.8, final_model: best,
        validate_every: 3, validation_batches: 3, save_every: 4, keep_checkpoints: 9, sample_every: 5, log_every: 1}
generate: {max_new_tokens: 8}
"""
PROGRAM = "from tinytale_mlx.cli.app import main; main({!r})"
BIN = Path(sys.executable).parent
Ended = list[tuple[int, str, str]]


def train(folder: Path, *arguments: str, kill: tuple[int, int] | None = None, cwd: list[Path] | None = None) -> Ended:
    """`tinytale train ARGUMENTS` in two processes: (exit code, standard output, standard error) of each.

    kill: after the first step, which process gets which signal. cwd: of each, where not the folder.
    """
    ports = free_ports(2)
    program = PROGRAM.format(["train", *arguments])
    both = [start(rank, ports, folder, "-c", program, cwd=(cwd or [folder] * 2)[rank]) for rank in range(2)]
    with killed_at_the_end(both) as processes:
        if kill is not None:
            assert processes[0].stdout
            line = next((line for line in processes[0].stdout if "step      1 " in line), None)
            assert line, processes[0].communicate(timeout=SECONDS)
            processes[kill[0]].send_signal(kill[1])
        said = [process.communicate(timeout=SECONDS) for process in processes]
        return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def launch(folder: Path, *arguments: str) -> tuple[str, str]:
    """What `mlx.launch -n 2 -- tinytale ARGUMENTS` says: standard output, standard error."""
    if not (BIN / "mlx.launch").is_file() or not (BIN / "tinytale").is_file():
        pytest.skip("mlx.launch and tinytale are not installed beside this Python")
    ports = str(free_ports(2)[0])
    command = [BIN / "mlx.launch", "-n", "2", "--backend", "ring", "--starting-port", ports, "--"]
    process = subprocess.Popen(
        [*command, BIN / "tinytale", *arguments],
        cwd=folder,
        text=True,
        stdin=subprocess.PIPE,  # it asks /dev/null for input without a pause
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with killed_at_the_end([process]):
        assert process.stdin
        process.wait(SECONDS)  # communicate() would close its input
        assert process.stdout
        assert process.stderr
        return process.stdout.read(), process.stderr.read()


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def figures(run: Path, name: str) -> list[float]:
    return [event[name] for event in log(run) if name in event and event["event"] in ("step", "validation")]


def weights(run: Path) -> dict[str, np.ndarray]:
    found = mx.load(str(run / "model" / "model.safetensors"))
    assert isinstance(found, dict)
    return {name: np.array(array.astype(mx.float32)) for name, array in found.items()}


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        assert np.abs(a[name] - b[name]).max() <= tolerance, name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a run `two`, trained by two processes, and what they said in `said.json`."""
    path = tmp_path_factory.mktemp("two")
    (path / "nano.yaml").write_text(RECIPE)
    (path / "said.json").write_text(json.dumps(launch(path, "train", "nano.yaml", "--name", "two", "--json")))
    return path


@pytest.fixture
def runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder / "runs"


# ---------------------------------------------------------------------- as one process
def test_two_processes_train_as_one(runs: Path, tinytale: Callable[..., Any]):
    alone = tinytale("train", "nano.yaml", "--name", "one", "--json")
    assert alone.code == 0, alone.err
    for name, count in (("loss", 8), ("grad_norm", 8), ("tokens", 11), ("val_loss", 3), ("val_bits_per_byte", 3)):
        one, two = figures(runs / "one", name), figures(runs / "two", name)
        assert len(one) == count
        assert two == pytest.approx(one, rel=1e-5), name
    assert_close(runs / "one", runs / "two", 1e-5)


def test_one_of_them_speaks(runs: Path):
    out, err = json.loads((runs.parent / "said.json").read_text())
    assert out.count("\n") == 1, out + err
    assert json.loads(out)["status"] == "finished"
    assert "Traceback" not in err
    events = [event["event"] for event in log(runs / "two")]
    assert (events.count("start"), events.count("step"), events.count("end")) == (1, 8, 1)
    assert sorted(path.name for path in runs.iterdir() if path.name != "one") == [".cache", "latest", "two"]


def test_one_goes_on_where_two_stopped(runs: Path, tinytale: Callable[..., Any]):
    shutil.copytree(runs / "two", runs / "went-on")
    shutil.rmtree(runs / "went-on" / "checkpoints" / "step-000008")
    result = tinytale("train", "--resume", "--name", "went-on", "--json")
    assert result.json["steps"] == 8, result.err
    assert_close(runs / "went-on", runs / "two", 1e-5)
    shutil.rmtree(runs / "went-on")


def test_a_stream_and_another_machine(runs: Path, tmp_path: Path, tinytale: Callable[..., Any]):
    """The second process runs elsewhere, without a disk in common; and each encodes the text on the way."""
    arguments = ["nano.yaml", "--set", "data.rows=windows", "--set", "data.store=false"]
    assert tinytale("train", *arguments, "--name", "stream-1").code == 0
    ended = train(runs.parent, *arguments, "--name", "stream-2", cwd=[runs.parent, tmp_path])
    assert [code for code, *_ in ended] == [0, 0], ended
    assert_close(runs / "stream-1", runs / "stream-2", 1e-5)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".cache"]


# ---------------------------------------------------------------------- stopped
def test_stopped_and_resumed_by_two(runs: Path):
    """With dropout, to the last bit; a signal to one stops both."""
    wet = ["nano.yaml", "--set", "model.residual_dropout=0.2", "--set", "train.steps=40"]
    assert [code for code, *_ in train(runs.parent, *wet, "--name", "wet")] == [0, 0]
    (code, said, _), other = train(runs.parent, *wet, "--name", "stopped", kill=(1, signal.SIGTERM))
    assert other == (0, "", "")
    assert code == 128 + signal.SIGINT
    assert "go on with" in said
    assert log(runs / "stopped")[-1]["steps"] < 40
    assert [code for code, *_ in train(runs.parent, "--resume", "--name", "stopped")] == [0, 0]
    assert_close(runs / "wet", runs / "stopped", 0)


def test_one_is_killed(runs: Path, tinytale: Callable[..., Any]):
    """The other one notices, and saves what they have learned together."""
    slow = ["--set", "train.steps=5000", "--set", "train.save_every=5000", "--set", "train.validate_every=5000"]
    (code, _, said), other = train(runs.parent, "nano.yaml", "--name", "torn", *slow, kill=(1, signal.SIGKILL))
    assert other[0] == -signal.SIGKILL
    assert code == 2
    sentence = said.rstrip("\n").rpartition("\n")[2]
    assert "the connection to the other processes of this training was lost; saved at step" in sentence
    assert sentence.endswith("go on with `tinytale train --resume --name torn`")
    (saved,) = (runs / "torn" / "checkpoints").iterdir()
    assert saved.name == f"step-{figures(runs / 'torn', 'step')[-1]:06d}"


# ---------------------------------------------------------------------- refused
def test_the_second_is_silent_where_the_first_fails(runs: Path):
    for arguments in (["nano.yaml", "--name", "two"], ["nano.yaml", "--set", "train.batch_size=3"]):
        (code, out, said), other = train(runs.parent, *arguments)
        assert (code, said.count("\n")) == (2, 1), out + said
        assert other == (0, "", "")


def test_a_text_that_the_second_does_not_find(runs: Path, tmp_path: Path):
    (runs.parent / "book.txt").write_text("The cat sat on the mat, and the dog went home.\n" * 200)
    book = [str(runs.parent / "nano.yaml"), "--data", "book.txt", "--name", "book"]
    (code, _, said), (other_code, _, other_said) = train(runs.parent, *book, cwd=[runs.parent, tmp_path])
    assert (code, other_code) == (2, 2)
    assert "tinytale: process 1 of 2 could not take part, see its own message\n" in said
    assert "process 1 of 2: " in other_said
    assert "book.txt" in other_said
    assert not (runs / "book").exists()
    assert os.readlink(runs / "latest") != "book"


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [("tales", 3, "batch_size 8 can't be shared evenly by 3 processes"), ("-", 2, "standard input")],
)
def test_what_cannot_be_shared(data: str, size: int, words: str, monkeypatch: pytest.MonkeyPatch):
    world = type("World", (), {"size": size})()
    monkeypatch.setattr(together, "world", lambda: world)
    recipe = recipe_files.load("tale", [f"data.source='{data}'"])
    with pytest.raises(UserError, match=words):
        together.check_shareable(recipe)
