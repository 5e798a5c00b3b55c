"""`tinytale` called as a person calls it: in this process where that will do, else as one of its own."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bases import train_base

from tinytale_mlx.cli.app import main
from tinytale_mlx.stages import tokenizing
from tinytale_mlx.tokenizers import ByteBPE

NANO = """
name: nano
data: {source: tales, documents: 300, validation: 0.05}
tokenizer: {kind: bpe, vocab_size: 512}
model: {hidden_size: 32, layers: 2, heads: 2, intermediate_size: 64, context: 32,
        residual_dropout: 0.1, attention_dropout: 0.1}
train: {steps: 24, batch_size: 4, accumulate: 2, optimizer: muon, learning_rate: 3e-3,
        validate_every: 10, validation_batches: 2, save_every: 5, sample_every: 10, log_every: 1}
generate: {max_new_tokens: 12}
"""
BOOK = "".join(f"The {animal} number {i} went home.\n" for i in range(100) for animal in ("cat", "dog"))
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one line with one JSON object."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out, parse_constant=_no_constant)

    @property
    def complaint(self) -> str:
        """The one sentence of a refusal."""
        assert self.code == 2, self.err
        last = self.err.rstrip("\n").rpartition("\n")[2]
        assert "Traceback" not in self.err
        return last


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def tinytale(*arguments: str | Path, stdin: str = "") -> Result:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, io.StringIO(stdin)
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(one) for one in arguments])
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdin = before
    return Result(code or 0, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, cwd: Path, before: str = "", **options: Any) -> subprocess.Popen[str]:
    """Start a command in a process of its own; `before` is Python to run there first."""
    program = f"{before}\nfrom tinytale_mlx.cli.app import main\nmain({[str(one) for one in arguments]!r})"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=options.pop("stderr", subprocess.STDOUT),
        start_new_session=True,
        **options,
    )


@pytest.fixture(name="tinytale")
def _tinytale() -> Callable[..., Result]:
    return tinytale


@pytest.fixture(scope="session")
def tinytale_once() -> Callable[..., Result]:
    """The same, for fixtures that many tests share."""
    return tinytale


@pytest.fixture(name="start")
def _start() -> Callable[..., subprocess.Popen[str]]:
    return start


@pytest.fixture
def nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that trains in a second, in an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nano.yaml"
    path.write_text(NANO)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder in which `tinytale train nano.yaml --json` has run, and what it said."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "nano.yaml").write_text(NANO)
    with contextlib.chdir(folder):
        result = tinytale("train", "nano.yaml", "--json")
    assert result.code == 0, result.err
    return folder, result


@pytest.fixture
def trained(finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as current folder; to be read, never changed."""
    monkeypatch.chdir(finished[0])
    return finished[0]


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run `base`, 64 wide, for fine-tuning."""
    folder = tmp_path_factory.mktemp("base")
    train_base(folder)
    return folder


@pytest.fixture
def base(base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own, with a copy of that run, as current folder."""
    shutil.copytree(base_folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The texts that lie beside the repository on the developers' machines."""
    if not SHARED.is_dir():
        pytest.skip(f"there is no {SHARED}")
    return SHARED


# ---------------------------------------------------------------------- tokenizers
@pytest.fixture(scope="session")
def book() -> str:
    """What is in the book.txt of `folder`."""
    return BOOK


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the current one, with a book.txt and nothing else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(BOOK)
    return tmp_path


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What tokenizers have been trained (not loaded) since the test began."""
    found: list[Any] = []
    make = tokenizing.make_tokenizer

    def counted(recipe: Any, *arguments: Any, **options: Any) -> Any:
        if recipe.kind not in tokenizing.LOADED:
            found.append((recipe, options["workers"]))
        return make(recipe, *arguments, **options)

    monkeypatch.setattr(tokenizing, "make_tokenizer", counted)
    return found


@pytest.fixture(scope="session")
def tok(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level BPE of 300 tokens."""
    path = tmp_path_factory.mktemp("tok")
    ByteBPE.train([BOOK], 300).save(path)
    return path
