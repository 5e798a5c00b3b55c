"""The run directory: everything that one training run leaves behind, and where each thing lies.

runs/NAME/  recipe.yaml (resolved)  log.jsonl  samples.txt  data/ (tokenizer, shards)  checkpoints/  model/
runs/latest -> NAME
"""

import fcntl
import itertools
import json
import math
import os
import re
import shlex
import shutil
import time
from pathlib import Path
from typing import IO, Any

from . import recipe_files
from .disk import replacing
from .errors import UserError
from .recipe import ALIGNMENTS, AlignRecipe, FinetuneRecipe, Recipe
from .recipe_files import AnyRecipe

ROOT = Path("runs")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LOCK = "run.lock"


class Run:
    """The paths of a run, its log and its lock. Making one touches nothing."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: IO[str] | None = None
        self._latest_before: str | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def reference(self) -> str:
        """What to type for this run on a command line: its name, or its path where it is not in the usual folder."""
        return shlex.quote(self.name if self.path.parent == ROOT else str(self.path))

    @property
    def resume_command(self) -> str:
        return f"tinytale {self.command} --resume --name {self.reference}"

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
    def adapter(self) -> Path:
        """What a fine-tuning learned beside its base."""
        return self.path / "adapter"

    @property
    def reward(self) -> Path:
        """The reward model, of a run that trained one."""
        return self.path / "reward"

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

    @property
    def kind(self) -> str:
        """The command that made it: `train`, `finetune`, or one of `tinytale rlhf`; each has recipes of its own."""
        if not self.exists():
            return "train"
        lines = self.recipe_path.read_text("utf-8").splitlines()
        named = next((line.removeprefix("kind:").strip() for line in lines if line.startswith("kind:")), None)
        return named or ("finetune" if any(line.startswith("base:") for line in lines) else "train")

    @property
    def command(self) -> str:
        """The same as one types it."""
        return f"rlhf {self.kind}" if self.is_align() else self.kind

    def is_finetune(self) -> bool:
        """Whether this is a run of `tinytale finetune`."""
        return self.kind == "finetune"

    def is_align(self) -> bool:
        """Whether this is a run of `tinytale rlhf`."""
        return self.kind in ALIGNMENTS

    def has_base(self) -> bool:
        """Whether it went on from another model, so that it may be just an adapter on that."""
        return self.kind != "train"

    def is_adapter(self) -> bool:
        """Whether it is no model without its base."""
        return self.has_base() and not (self.model / "config.json").is_file()

    def any_recipe(self) -> AnyRecipe:
        """The resolved recipe, of whichever kind."""
        return self.tuning_recipe() if self.has_base() else self.recipe()

    def tuning_recipe(self) -> FinetuneRecipe | AlignRecipe:
        """The resolved recipe of a run with a base."""
        return self.align_recipe() if self.is_align() else self.finetune_recipe()

    def align_recipe(self) -> AlignRecipe:
        """The resolved recipe of an alignment. Raises UserError where this is none."""
        if not self.is_align():
            raise UserError(f"the run {self.name} is one of `tinytale {self.command}`, not of `tinytale rlhf`")
        return recipe_files.load_align(self.recipe_path)

    def finetune_recipe(self) -> FinetuneRecipe:
        """The resolved recipe of a fine-tuning. Raises UserError where this is none."""
        if not self.is_finetune():
            raise UserError(f"the run {self.name} is no fine-tuning; `tinytale finetune {self.reference}` begins one")
        return recipe_files.load_finetune(self.recipe_path)

    def lock(self) -> None:
        """Claim the run for this process, until it ends or unlocks it. Raises UserError where another one has it."""
        try:
            self._lock = (self.path / LOCK).open("a+")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._lock.truncate(0)
            self._lock.write(f"{os.getpid()}\n")
            self._lock.flush()
        except BlockingIOError:
            raise UserError(f"another process{self._owner()} is training in {self.path}") from None
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def unlock(self) -> None:
        """Let other processes, and this one, claim it again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _owner(self) -> str:
        """The process that has the lock, for a message; nothing where it has not yet said its number."""
        number = (self.path / LOCK).read_text(encoding="utf-8").strip()
        return f" ({number})" if number else ""

    def start(self, recipe: AnyRecipe) -> None:
        """Write the resolved recipe, point `latest` here, and clear away what a killed process left half written."""
        self.write_recipe(recipe)
        try:
            self._clean()
            latest = self.path.parent / "latest"
            self._latest_before = os.readlink(latest) if latest.is_symlink() else None
            _point(latest, self.name)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def write_recipe(self, recipe: AnyRecipe) -> None:
        """What `recipe` then gives back. Raises UserError where the disk refuses."""
        try:
            with replacing(self.recipe_path) as temporary:
                temporary.write_text(recipe_files.dump(recipe), encoding="utf-8")
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _clean(self) -> None:
        """Temporary files of this run, which nobody else writes while it is locked, and half a line of the log."""
        for path in list(self.path.rglob("*.tmp")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if self.log_path.is_file():
            whole = self.log_path.read_bytes().rpartition(b"\n")
            if whole[2]:
                os.truncate(self.log_path, len(whole[0]) + len(whole[1]))

    def log(self, event: dict[str, Any]) -> None:
        """Append one line to log.jsonl; not-a-number and infinity become null."""
        line = {"time": round(time.time(), 3)} | {key: _plain(value) for key, value in event.items()}
        self._append(self.log_path, json.dumps(line, ensure_ascii=False) + "\n")

    def add_sample(self, step: int, text: str) -> None:
        self._append(self.path / "samples.txt", f"--- after {step} steps\n{text}\n\n")

    def _append(self, path: Path, text: str) -> None:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise _unwritable(path, error) from error

    def discard(self) -> None:
        """Delete a run that never got as far as a checkpoint; `latest` names again what it named before."""
        latest = self.path.parent / "latest"
        if latest.is_symlink() and os.readlink(latest) == self.name:
            latest.unlink()
            if self._latest_before is not None:
                _point(latest, self._latest_before)
        shutil.rmtree(self.path, ignore_errors=True)


def _point(link: Path, target: str) -> None:
    """Make or change a symbolic link in one move."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} could not be written: {(error.strerror or str(error)).lower()}")


def new(name: str | None, recipe: AnyRecipe, root: Path = ROOT) -> Run:
    """A run that does not exist yet: NAME, or the recipe's name with the first free number.

    Its folder is made here, so that two processes never get the same one. Raises UserError where NAME is taken or not
    a file name, or the folder can't be made.
    """
    numbered = itertools.chain([recipe.name], (f"{recipe.name}-{number}" for number in itertools.count(2)))
    for candidate in numbered if name is None else [name]:
        if not NAME.fullmatch(candidate) or candidate == "latest":
            raise UserError(f"a run's name is made of letters, digits, dots, dashes and underscores, not {candidate!r}")
        run = Run(root / candidate)
        try:
            run.path.mkdir(parents=True)
        except FileExistsError:
            if name is not None and not _abandoned(run.path):
                raise UserError(_taken(run)) from None
            if name is None:
                continue
        except OSError as error:
            raise _unwritable(run.path, error) from error
        return run
    raise AssertionError("there is always a next number")


def _abandoned(path: Path) -> bool:
    """Whether a folder holds no more than what a process leaves that was killed before it wrote its recipe."""
    return path.is_dir() and all(file.name == LOCK or file.suffix == ".tmp" for file in path.iterdir())


def _taken(run: Run) -> str:
    if run.exists():
        return f"the run {run.path} exists; continue it with `{run.resume_command}`, or pick another --name"
    return f"{run.path} exists and is not a run; pick another --name"


def find(name: str | None, root: Path = ROOT) -> Run:
    """The run of that name or path; without one, the latest."""
    if name is None:
        latest = root / "latest"
        if not Run(latest).exists():
            raise UserError(f"there is no run in {root}/ yet; `tinytale train` makes one")
        return Run(root / latest.resolve().name)
    for path in (Path(name), root / name):
        if Run(path).exists():
            return Run(path)
    raise UserError(f"there is no run {name} (looked for {name} and {root / name}){_others(root)}")


def _others(root: Path, most: int = 8) -> str:
    """The newest runs, for a message."""
    recipes = sorted(root.glob("*/recipe.yaml"), key=lambda path: -path.stat().st_mtime)
    names = [path.parent.name for path in recipes if not path.parent.is_symlink()]
    return f"; there are {', '.join(names[:most])}{', ...' if len(names) > most else ''}" if names else ""
