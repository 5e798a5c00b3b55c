"""A tokenizer is kept between runs: found again for the same text and settings, whole or not at all."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx import recipe_files, stages
from tinytale_mlx.errors import UserError
from tinytale_mlx.stages import tokenizing
from tinytale_mlx.tokenizers import ByteBPE, load_tokenizer


def kept(root: Path = Path("runs")) -> list[Path]:
    return sorted((root / ".cache" / "tokenizers").iterdir())


def test_train_uses_the_tokenizer_of_an_earlier_run(nano: Path, trainings: list, tinytale) -> None:
    once = ["train", nano, "--steps", "1"]
    first, second = tinytale(*once), tinytale(*once)
    assert "training the tokenizer (byte-level BPE, 512 tokens)" in first.out
    assert "using the tokenizer trained before (byte-level BPE, 512 tokens)" in second.out
    assert len(trainings) == 1
    models = [load_tokenizer(Path("runs") / name / "model").fingerprint for name in ("nano", "nano-2")]
    assert models[0] == models[1]
    assert tinytale(*once, "--retrain").code == 0
    assert len(trainings) == 2
    assert len(kept()) == 1
    assert tinytale("tokenizer", "train", nano, "--json").json["reused"]


def test_a_run_shows_its_tokenizer_once(nano: Path, tinytale) -> None:
    assert "2.34 bytes per token" in tinytale("train", nano, "--steps", "1").out
    events = map(json.loads, Path("runs/nano/log.jsonl").read_text().splitlines())
    (event,) = (event for event in events if event["event"] == "tokenizer")
    assert event["vocab_size"] == 512
    assert event["bytes_per_token"] == pytest.approx(2.34, abs=0.01)
    assert len(event["sample"]) > 5
    assert "bytes per token" not in tinytale("train", "--resume").out


def test_resume_keeps_the_runs_own(nano: Path, trainings: list, tinytale) -> None:
    assert tinytale("train", nano, "--steps", "1").code == 0
    shutil.rmtree("runs/.cache")
    assert tinytale("train", "--resume").code == 0
    assert len(trainings) == 1
    assert "a run that is resumed keeps its tokenizer" in tinytale("train", "--resume", "--retrain").complaint


def recipe(*overrides: str) -> Any:
    return recipe_files.load("tale", ["data.source=book.txt", "data.documents=null", *overrides])


OTHER = {
    "size": "tokenizer.vocab_size=301",
    "store": "data.store=false",
    "pattern": "tokenizer.pattern=gpt4",
    "kind": "tokenizer.kind=word",
    "text": "data.source=other.txt",
    "more text": "data.source=[book.txt, other.txt]",
    "cleaning": "data.clean.lowercase=true",
    "fewer documents": "data.documents=1",
    "tales": "data.source=tales",
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_makes_another_tokenizer(change: str, folder: Path, book: str) -> None:
    Path("other.txt").write_text(book)
    assert tokenizing.made_from(recipe()) != tokenizing.made_from(recipe(change))


@pytest.mark.parametrize(
    "change",
    ["name=x", "model.layers=1", "train.steps=99", "data.rows=windows", "data.validation=0.2", "seed=5",
     "data.source=./book.txt", "data.source=[book.txt]"],
)  # fmt: skip
def test_what_makes_the_same_tokenizer(change: str, folder: Path) -> None:
    assert tokenizing.made_from(recipe()) == tokenizing.made_from(recipe(change))


def test_a_changed_file_makes_another_tokenizer(folder: Path) -> None:
    before = tokenizing.made_from(recipe())
    os.utime("book.txt", (0, 0))
    assert tokenizing.made_from(recipe()) != before


def test_the_same_name_elsewhere_is_another_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tokenizing.made_from(recipe())
    Path("other").mkdir()
    shutil.copy2("book.txt", "other/book.txt")
    monkeypatch.chdir("other")
    assert tokenizing.made_from(recipe()) != before


def test_it_learns_from_the_cleaned_text(folder: Path) -> None:
    """As the model does."""
    tokenizer = stages.tokenizer_for(recipe("tokenizer.kind=char", "data.clean.lowercase=true"), folder)
    assert tokenizer.encode("the") != [tokenizer.unk_id] * 3
    assert tokenizer.encode("T") == [tokenizer.unk_id]


def test_tales_count_by_their_seed(folder: Path) -> None:
    assert len({tokenizing.made_from(recipe("data.source=tales", f"seed={seed}")) for seed in (0, 1)}) == 2


def test_a_damaged_one_is_trained_again(folder: Path, trainings: list) -> None:
    wanted = recipe("tokenizer.vocab_size=300")
    first = stages.tokenizer_for(wanted, folder)
    (one,) = kept(folder)
    (one / "tokenizer.json").write_text("{")
    assert stages.tokenizer_for(wanted, folder).fingerprint == first.fingerprint
    assert stages.tokenizer_for(wanted, folder).fingerprint == first.fingerprint
    assert len(trainings) == 2


def test_two_processes_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is done between any two steps of this one: a whole folder is there in the end, and nothing else."""
    wanted = recipe("tokenizer.vocab_size=300")
    expected = stages.tokenizer_for(wanted, folder / "other").fingerprint
    (theirs,) = kept(folder / "other")
    rename = os.rename

    def meanwhile(source: Path, target: Path) -> None:
        if Path(target).name == theirs.name and not Path(target).exists():
            shutil.copytree(theirs, target)
        rename(source, target)

    for before in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(tokenizing.os, "rename", meanwhile)
            assert stages.tokenizer_for(wanted, folder, retrain=before).fingerprint == expected
        assert [path.name for path in kept(folder)] == [theirs.name]
        assert load_tokenizer(kept(folder)[0]).fingerprint == expected


def test_killed_while_saving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is half written is never used."""
    save, wanted = ByteBPE.save, recipe("tokenizer.vocab_size=300")

    def half(self: ByteBPE, directory: Path, **options: Any) -> None:
        save(self, directory)
        (Path(directory) / "tokenizer_config.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ByteBPE, "save", half)
        with pytest.raises(KeyboardInterrupt):
            stages.tokenizer_for(wanted, folder)
    assert kept(folder) == []
    assert stages.tokenizer_for(wanted, folder).vocab_size == 300


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(UserError, match="the tokenizer could not be written to"):
        stages.tokenizer_for(recipe("tokenizer.vocab_size=300"), folder / "file")
