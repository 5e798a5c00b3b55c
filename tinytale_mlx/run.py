"""The run directory: everything that one training run leaves behind, and where each thing lies.

    runs/NAME/  recipe.yaml (resolved)  log.jsonl  samples.txt  data/ (tokenizer, shards)  checkpoints/  model/
    runs/latest -> NAME
"""

import fcntl
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import IO, Any

from . import recipe_files
from .errors import UserError
from .recipe import Recipe

ROOT = Path("runs")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*$")


class Run:
    """The paths of a run, its log and its lock. Making one touches nothing."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def recipe_path(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def tokenizer(self) -> Path:
        return self.data / "tokenizer"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def log_path(self) -> Path:
        return self.path / "log.jsonl"

    def exists(self) -> bool:
        return self.recipe_path.is_file()

    def recipe(self) -> Recipe:
        """The resolved recipe that the run was started with."""
        if not self.exists():
            raise UserError(f"{self.path} is not a run: it has no recipe.yaml")
        return recipe_files.load(str(self.recipe_path))

    def start(self, recipe: Recipe) -> None:
        """Make the directory, write the resolved recipe, point `latest` here."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            temporary = self.path / ".recipe.yaml.tmp"
            temporary.write_text(recipe_files.dump(recipe), encoding="utf-8")
            os.replace(temporary, self.recipe_path)
            self.point_latest()
        except OSError as error:
            raise UserError(f"the run directory {self.path} could not be written: {error.strerror}") from error

    def point_latest(self) -> None:
        temporary = self.path.parent / f".latest.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self.name)
        os.replace(temporary, self.path.parent / "latest")

    def lock(self) -> None:
        """Claim the run for this process, until it ends. Raises UserError where another one is training in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / "run.lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is training in {self.path}") from None

    def log(self, event: dict[str, Any]) -> None:
        """Append one line to log.jsonl; not-a-number becomes null."""
        line = {"time": round(time.time(), 3)} | {k: None if v != v else v for k, v in event.items()}
        try:
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UserError(f"{self.log_path} could not be written: {error.strerror}") from error

    def add_sample(self, step: int, text: str) -> None:
        with (self.path / "samples.txt").open("a", encoding="utf-8") as file:
            file.write(f"--- after {step} steps\n{text}\n\n")

    def discard(self) -> None:
        """Delete a run that never got as far as a checkpoint."""
        shutil.rmtree(self.path, ignore_errors=True)
        latest = self.path.parent / "latest"
        if latest.is_symlink() and not latest.exists():
            latest.unlink()


def new(name: str | None, recipe: Recipe, root: Path = ROOT) -> Run:
    """A run that does not exist yet: NAME, or the recipe's name with the first free number.

    Raises UserError where NAME is taken or not a file name.
    """
    if name is None:
        numbers = iter(range(2, 1_000_000))
        name = recipe.name
        while (root / name).exists():
            name = f"{recipe.name}-{next(numbers)}"
    if not NAME.match(name) or name == "latest":
        raise UserError(f"a run's name is made of letters, digits, dots, dashes and underscores, not {name!r}")
    run = Run(root / name)
    if run.path.exists():
        raise UserError(f"the run {run.path} exists; continue it with `tinytale train --resume --name {name}`, or pick another --name")
    return run


def find(name: str | None, root: Path = ROOT) -> Run:
    """The run of that name or path; without one, the latest."""
    if name is None:
        latest = Run(root / "latest")
        if not latest.exists():
            raise UserError(f"there is no run in {root}/ yet; `tinytale train` makes one")
        return Run(latest.path.resolve().relative_to(Path.cwd()) if _below(latest.path) else latest.path.resolve())
    for path in (Path(name), root / name):
        if (path / "recipe.yaml").is_file():
            return Run(path)
    raise UserError(f"there is no run {name} (looked for {name} and {root / name})")


def _below(path: Path) -> bool:
    return path.resolve().is_relative_to(Path.cwd())
