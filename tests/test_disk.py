"""A file is the old one or the new one, never half of one."""

from pathlib import Path

import pytest

from tinytale_mlx import disk
from tinytale_mlx.errors import UserError


def test_takes_the_place_of_the_old_file(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with disk.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".tmp"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_failing_half_way_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def write() -> None:
        with disk.replacing(path) as temporary:
            temporary.write_text("ne")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path):
    folder, left = tmp_path / "model", tmp_path / ".model.tmp"
    for old in (folder, left):  # the second, of a process that was killed
        old.mkdir()
        (old / "old").touch()
    with disk.replacing_folder(folder) as temporary:
        assert list(temporary.iterdir()) == []
        (temporary / "new").touch()
        assert (folder / "old").exists()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("No space left on device")])
def test_a_full_disk_leaves_the_old_folder_and_is_said(error: Exception, tmp_path: Path):
    """MLX says it by a RuntimeError."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()

    def write() -> None:
        with disk.writing("the model", folder), disk.replacing_folder(folder) as temporary:
            (temporary / "new").touch()
            raise error

    with pytest.raises(UserError, match=r"^the model could not be written to .*model: No space left on device$"):
        write()
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [folder]


def test_it_is_on_the_disk_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, existed = tmp_path / "a.json", []
    monkeypatch.setattr(disk, "flush", lambda flushed: existed.append((flushed.exists(), path.exists())))
    with disk.replacing(path) as temporary:
        temporary.write_text("new")
    assert existed == [(True, False)]


def test_a_folder_is_flushed_after_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in "ab":
        (tmp_path / name).touch()
    flushed = []
    monkeypatch.setattr(disk, "flush", flushed.append)
    disk.flush_folder(tmp_path)
    assert flushed[-1] == tmp_path
    assert sorted(flushed[:-1]) == [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize("obeyed", [True, False], ids=["macOS", "a disk there that does not know it"])
def test_the_drive_is_told_to_write(obeyed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By a command that only macOS has; where the disk refuses it, and elsewhere, by fsync."""
    done = []

    def command(descriptor: int, number: int) -> None:
        done.append(number)
        if not obeyed:
            raise OSError(45, "Operation not supported")

    monkeypatch.setattr(disk, "FULL_SYNC", 51)
    monkeypatch.setattr(disk.fcntl, "fcntl", command)
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: done.append("fsync"))
    disk.flush(tmp_path)
    assert done == ([51] if obeyed else [51, "fsync"])
