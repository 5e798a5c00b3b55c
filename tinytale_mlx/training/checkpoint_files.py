"""The folders that hold checkpoints: complete or absent, checked before they are believed, kept or deleted.

A checkpoint is written under another name, flushed to the disk, then renamed, so `step-000500` is all there or not at
all, whenever the machine is switched off. What a disk does to it later is found out by `checksums.json`, which has the
SHA-256 of every other file.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .. import disk
from ..errors import UserError

NAME = re.compile(r"step-\d{6,}")
STATE, CHECKSUMS = "state.json", "checksums.json"


class Damaged(UserError):
    """A checkpoint that is not what was written."""


# ---------------------------------------------------------------------- written and checked
@contextmanager
def writing(folder: Path, step: int) -> Iterator[Path]:
    """Inside, the folder to write the files to; afterwards it is `folder/step-NNNNNN`, with their checksums.

    Raises:
        UserError: the disk is full, read-only or broken; then nothing is left of it, and the others are as they were.
    """
    target = folder / f"step-{step:06d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        sums = {path.name: checksum(path) for path in sorted(temporary.iterdir())}
        (temporary / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
        disk.flush_folder(temporary)
        if target.exists():
            _delete(target)
        os.rename(temporary, target)
        disk.flush(folder)
    except (OSError, RuntimeError) as error:  # MLX reports a full disk as a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        reason = (error.strerror if isinstance(error, OSError) else None) or f"{error} (is the disk full?)"
        raise UserError(f"the checkpoint of step {step} could not be written to {folder}: {reason}") from error


def checksum(file: Path) -> str:
    """SHA-256, as `shasum -a 256` prints it."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def verify(path: Path, names: Iterable[str] | None = None) -> None:
    """Read all files of a checkpoint, or those of these names, and compare.

    Raises:
        Damaged: which file is missing or does not match its checksum.
    """
    reason = None
    try:
        sums = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
        changed = (name for name in (sums if names is None else [STATE, *names]) if checksum(path / name) != sums[name])
        if (name := next(changed, None)) is not None:
            reason = f"{name} does not match its checksum"
    except FileNotFoundError as error:
        reason = f"{Path(error.filename).name} is missing"
    except OSError as error:
        reason = error.strerror
    except (ValueError, TypeError, LookupError):
        reason = f"{CHECKSUMS} can't be read"
    if reason:
        raise damaged(path, reason)


def damaged(path: Path, reason: object) -> Damaged:
    return Damaged(f"the checkpoint {path} is damaged ({reason})")


# ---------------------------------------------------------------------- found
def all_checkpoints(folder: Path) -> list[Path]:
    """The complete ones, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if NAME.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The number of steps after which a checkpoint was written."""
    return int(path.name.removeprefix("step-"))


def validation_loss(path: Path) -> float | None:
    """That of the very step of a checkpoint; None where there was no validation, or nobody can tell."""
    try:
        return json.loads((path / STATE).read_text(encoding="utf-8")).get("val_loss")
    except (OSError, ValueError, AttributeError):
        return None


def best_first(folder: Path) -> list[Path]:
    """The checkpoints with a validation loss, the lowest first; of equal ones, the earliest."""
    losses = {path: validation_loss(path) for path in all_checkpoints(folder)}
    return sorted((path for path, loss in losses.items() if loss is not None), key=lambda path: losses[path] or 0.0)


# ---------------------------------------------------------------------- kept and deleted
def kept_steps(losses: Mapping[int, float | None], newest: int, best: int) -> set[int]:
    """Of the steps with a checkpoint, those to keep: the `newest` >= 1 and the `best` >= 0.

    losses: each step's validation loss, None where there is none. Of equal losses the earlier step is the better one.
    """
    validated = sorted((loss, step) for step, loss in losses.items() if loss is not None)
    return {*sorted(losses)[-newest:], *(step for _, step in validated[:best])}


def prune(folder: Path, newest: int, best: int = 0) -> None:
    """Delete all checkpoints but those of `kept_steps`, so never the newest one."""
    paths = {step_of(path): path for path in all_checkpoints(folder)}
    kept = kept_steps({step: validation_loss(path) for step, path in paths.items()}, newest, best)
    for step, path in paths.items():
        if step not in kept:
            _delete(path)


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it counts no longer; somebody may still want to look at it."""
    aside = path.with_name(f"damaged-{path.name}")
    with disk.writing("the new name of a damaged checkpoint", aside):
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
    return aside


def link(path: Path, folder: Path) -> Path:
    """The same checkpoint in the folder of another run; its files take no room there, where the disk can do that.

    Raises:
        UserError: it is gone, or the disk refuses.
    """
    target = folder / path.name
    temporary = folder / f".{path.name}.tmp"
    with disk.writing("the checkpoint", target):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(path, temporary, copy_function=_link_or_copy)
        disk.flush_folder(temporary)
        os.rename(temporary, target)
        disk.flush(folder)
    return target


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)


def _delete(path: Path) -> None:
    """Under its temporary name, lest a half deleted checkpoint look like a whole one."""
    doomed = path.with_name(f".{path.name}.old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)
