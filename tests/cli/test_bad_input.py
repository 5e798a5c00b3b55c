"""What the user can mend is said in one sentence, with exit code 2; and nothing half written is left."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {
    "empty.txt": b"",
    "short.txt": b"Once upon a time.\n" * 8,
    "word.txt": b"O",
    "binary.txt": bytes(range(256)) * 20,
    "latin.txt": b"good line\nbad \xff line\n",
    "broken.jsonl": b'{"text": "a"}\n{bad\n',
    "field.jsonl": b'{"story": "a"}\n',
    "list.yaml": b"- 1\n",
    "tabs.yaml": b"a:\n\t- b",
}
TRAIN = {
    "no file": (["--data", "none.txt"], "none.txt: there is no such file or folder"),
    "empty file": (["--data", "empty.txt"], "empty.txt is empty"),
    "too short": (["--data", "short.txt"], " tokens, and one batch of 4 x 32 needs 129; use more text"),
    "not to be split": (["--data", "word.txt"], "leaves none for"),
    "no validation": (["--set", "data.validation=0"], "leaves none for validation"),
    "binary file": (["--data", "binary.txt"], "binary.txt looks like a binary file"),
    "invalid UTF-8": (["--data", "latin.txt"], "latin.txt, line 2: byte 0xff is not valid UTF-8"),
    "bad JSON": (["--data", "broken.jsonl"], "broken.jsonl, line 2 is not valid JSON"),
    "missing field": (["--data", "field.jsonl"], "line 1: there is no field 'text' (fields: story)"),
    "unknown key": (["--set", "train.stpes=4"], "there is no key train.stpes; did you mean train.steps?"),
    "unknown section": (["--set", "trian.steps=4"], "there is no key trian; did you mean train?"),
    "width": (["--set", "model.heads=5"], "model.hidden_size 32 is not divisible by model.heads 5"),
    "no step": (["--steps", "0"], "train.steps: input should be greater than 0, not 0"),
    "no number": (["--set", "train.steps=many"], "train.steps: input should be a valid integer"),
    "not KEY=VALUE": (["--set", "train.steps"], "--set takes KEY=VALUE"),
    "too small a vocabulary": (["--set", "tokenizer.vocab_size=100"], "a vocabulary of 100 is too small"),
    "no tokenizer": (
        ["--set", "tokenizer.kind=directory", "--set", "tokenizer.path=gone"], "there is no tokenizer in gone"
    ),
    "slash in the name": (["--name", "a/b"], "a run's name is made of letters, digits"),
    "climbing name": (["--name", ".."], "a run's name is made of letters, digits"),
    "reserved name": (["--name", "latest"], "a run's name is made of letters, digits"),
    "line break in the name": (["--name", "a\n"], "a run's name is made of letters, digits"),
    "long name": (["--name", "a" * 300], "could not be written: file name too long"),
    "runs in a file": (["--runs", "nano.yaml"], "could not be written: not a directory"),
    "no such folder to write": (["--runs", "/proc/nowhere"], "could not be written"),
    "divergence": (["--learning-rate", "1e30"], "so training stopped; there is no checkpoint. Start again with"),
    "too large a model": (["--set", "model.vocab_size=2000000000"], " MB at its peak, and "),
}  # fmt: skip


@pytest.fixture
def folder(nano: Path) -> Path:
    for name, content in FILES.items():
        (nano.parent / name).write_bytes(content)
    return nano.parent


@pytest.mark.parametrize(("arguments", "said"), TRAIN.values(), ids=TRAIN)
def test_train(arguments: list[str], said: str, folder: Path, tinytale) -> None:
    result = tinytale("train", "nano.yaml", *arguments, "--json")
    assert result.complaint.startswith("tinytale: ")
    assert said in result.complaint
    assert result.out == ""
    assert not Path("runs").is_dir() or set(os.listdir("runs")) <= {".cache"}


OTHERS = {
    "unknown recipe": (["train", "tiny-tail"], "there is no recipe 'tiny-tail'; did you mean tiny-tale?"),
    "no recipe file": (["train", "none.yaml"], "there is no recipe file none.yaml"),
    "not a recipe": (["train", "list.yaml"], "list.yaml is not a recipe"),
    "not YAML": (["train", "tabs.yaml"], "tabs.yaml is not valid YAML"),
    "nothing to resume": (["train", "--resume"], "there is no run in runs/ yet; `tinytale train` makes one"),
    "no such run to resume": (["train", "--resume", "--name", "cat"], "there is no run cat"),
    "nothing to chat with": (["chat"], "there is no run in runs/ yet"),
    "nothing to score": (["eval"], "there is no run in runs/ yet"),
    "nothing to describe": (["info"], "there is no run in runs/ yet"),
    "no such run to describe": (["info", "tiny-tail"], "nor is there such a recipe, see `tinytale recipes`"),
}


@pytest.mark.parametrize(("arguments", "said"), OTHERS.values(), ids=OTHERS)
def test_without_a_run(arguments: list[str], said: str, folder: Path, tinytale) -> None:
    result = tinytale(*arguments)
    assert said in result.complaint
    assert result.out == ""
    assert not Path("runs").exists()


WITH_RUN = {
    "unknown run": (["generate", "cat"], "there is no run cat (looked for cat and runs/cat); there are nano"),
    "temperature": (["generate", "-t", "-1"], "--temperature: input should be greater than or equal to 0, not -1"),
    "no number": (["generate", "-t", "nan"], "--temperature: input should be a finite number, not nan"),
    "top-p above 1": (["generate", "--top-p", "1.5"], "--top-p: input should be less than or equal to 1"),
    "top-p 0": (["chat", "--top-p", "0"], "--top-p: input should be greater than 0"),
    "top-k": (["generate", "--top-k", "-1"], "--top-k: input should be greater than or equal to 0"),
    "no token": (["generate", "-m", "0"], "--max-new-tokens: input should be greater than 0"),
    "half a character": (["generate", "-p", "\udcff"], "lone surrogate"),
    "no text": (["eval", "--data", "none.txt"], "none.txt: there is no such file or folder"),
    "a model has no text": (["eval", "runs/nano/model"], "is a model, not a run"),
    "overriding what is trained": (["info", "nano", "--set", "seed=2"], "--set changes a recipe"),
    "name that is taken": (["train", "nano.yaml", "--name", "nano"],
        "the run runs/nano exists; continue it with `tinytale train --resume --name nano`, or pick another"),
    "other recipe": (["train", "nano.yaml", "--resume", "--set", "seed=3", "--batch-size", "2"],
        "the run nano was started with another recipe (seed: 0 -> 3; train.batch_size: 4 -> 2); resume it"),
    "very other recipe": (["train", "tale", "--resume"], " more); resume it without changes, or add --branch NAME"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), WITH_RUN.values(), ids=WITH_RUN)
def test_with_a_run(arguments: list[str], said: str, trained: Path, tinytale) -> None:
    result = tinytale(*arguments)
    assert said in result.complaint
    assert result.out == ""


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["train", "--frobnicate"], ["generate", "-n", "0"], ["train", "--batch-size", "x"]],
)
def test_usage(arguments: list[str], nano: Path, tinytale) -> None:
    result = tinytale(*arguments)
    assert result.code == 2
    assert "Usage: " in result.err
    assert result.out == ""


def test_name_of_something_else(nano: Path, tinytale) -> None:
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/diary.txt").touch()
    assert tinytale("train", nano, "--name", "mine").complaint == (
        "tinytale: runs/mine exists and is not a run; pick another --name"
    )
    assert Path("runs/mine/diary.txt").exists()


def test_a_failure_leaves_latest_as_it_was(nano: Path, tinytale) -> None:
    assert tinytale("train", nano, "--steps", "1").code == 0
    assert tinytale("train", nano, "--data", "none.txt").code == 2
    assert sorted(os.listdir("runs")) == [".cache", "latest", "nano"]
    assert os.readlink("runs/latest") == "nano"


def test_divergence_keeps_the_last_checkpoint(nano: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    """And from there it goes on, once the reason is gone."""
    from tinytale_mlx.training import loop

    rate = loop.learning_rate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate", lambda step, train: 1e30 if step == 11 else rate(step, train))
        complaint = tinytale("train", nano).complaint
    assert " at step 13 (" in complaint
    assert ", so training stopped; the last checkpoint is that of step 10. Start again with a " in complaint
    assert sorted(os.listdir("runs/nano/checkpoints")) == ["step-000005", "step-000010"]
    resumed = tinytale("train", "--resume")
    assert resumed.code == 0
    assert "going on from step 10" in resumed.out


@pytest.mark.slow
def test_disk_that_fills_up(nano: Path, start) -> None:
    """After the first checkpoint no file may grow to the size of one."""
    full = "import resource, tinytale_mlx.training.checkpoint as c; prune = c.prune\n"
    full += "def after(folder, *keep):\n  prune(folder, *keep)\n  if c.all_checkpoints(folder):\n"
    full += "    resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))\n"
    full += "c.prune = after"
    process = start("train", nano, cwd=nano.parent, before=full)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 2, said
    assert "the checkpoint of step 10 could not be written to runs/nano/checkpoints" in said
    assert "Traceback" not in said
    assert os.listdir("runs/nano/checkpoints") == ["step-000005"]
    process = start("train", "--resume", cwd=nano.parent)
    assert "going on from step 5" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def test_folder_that_cannot_be_written(nano: Path, start) -> None:
    """As root nothing is read-only, so no file may grow beyond 100 bytes."""
    none = f"import resource; resource.setrlimit({int(resource.RLIMIT_FSIZE)}, (100, 100))"
    process = start("train", nano, cwd=nano.parent, before=none, stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.rstrip().rpartition("\n")[2] == "tinytale: runs/nano could not be written: file too large"
    assert not Path("runs/nano").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["train", "nano.yaml"], ["tokenizer", "encode", "a tale " * 3000], ["generate", "-m", "2000"]],
    ids=["train", "encode", "generate"],
)
def test_reader_that_goes_away(arguments: list[str], trained: Path, start) -> None:
    """As in `tinytale train | head -1`: the end, without a word."""
    before = set(os.listdir("runs"))
    process = start(*arguments, cwd=trained, stderr=subprocess.PIPE, pipesize=4096)
    assert process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) not in (0, 2)
    assert set(os.listdir("runs")) == before


@pytest.mark.slow
def test_terminal_without_utf8(trained: Path, start) -> None:
    process = start(
        "train", "nano.yaml", "--name", "ascii", "--runs", "other", cwd=trained, env={"PYTHONIOENCODING": "ascii"}
    )
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert said.isascii()
    process = start("generate", "--json", "-p", "caf\u00e9", cwd=trained, env={"PYTHONIOENCODING": "ascii"})
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert said.isascii()


def test_python_warnings_are_not_shown() -> None:
    """No deprecation of a library gets between the lines."""
    shown = subprocess.run(
        [sys.executable, "-m", "tinytale_mlx.cli.app", "recipes", "--json"], capture_output=True, text=True, check=True
    )
    assert shown.stderr == ""
