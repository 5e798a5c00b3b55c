"""`tinytale data`, and training on mixtures, packed rows, streams, and text that has changed or gone."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tinytale_mlx.data.tales import tales

STEPS = ("--set", "train.steps=6", "--set", "train.validate_every=6", "--set", "train.sample_every=100")


@pytest.fixture
def stories(nano: Path) -> Path:
    """A file of 200 tales beside the recipe."""
    path = nano.parent / "stories.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in tales(200, seed=5)))
    return path


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def log(run: str) -> list[dict]:
    return [json.loads(line) for line in (Path("runs") / run / "log.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------------- prepare
def test_prepared_ahead_and_then_used(nano: Path, stories: Path, tinytale: Callable, monkeypatch) -> None:
    prepared = tinytale("data", "prepare", nano, "--data", stories, "--json")
    (source,) = prepared.json["sources"]
    assert source["documents"] + source["validation_documents"] == 200
    assert Path(source["folder"], "train.bin").stat().st_size == 2 * source["tokens"]
    assert source["bytes"] == sum(len(text.encode()) for text in tales(200, seed=5))
    monkeypatch.setattr("tinytale_mlx.data.encode.encode_some", None)  # nothing is encoded any more
    trained = tinytale("train", nano, "--data", stories, *STEPS, "--json")
    assert trained.code == 0, trained.err
    started = next(event for event in log("nano") if event["event"] == "start")
    assert started["train_tokens"] == source["tokens"]


def test_prepare_says_what_was_left_out(nano: Path, stories: Path, tinytale: Callable) -> None:
    stories.write_text(stories.read_text() + '\n{"text": "<b>Short.</b>"}\n{"story": "?"}\n')
    changes = ("--set", "data.skip_bad=true", "--set", "data.clean.html=true", "--set", "data.clean.min_characters=9")
    said = tinytale("data", "show", nano, "--data", stories, *changes)
    assert "html changed 1 documents, 7 characters fewer" in said.out
    assert "1 documents left out: too short" in said.out
    assert "1 rows skipped" in said.out
    assert "no field 'text'" in said.out
    (source,) = tinytale("data", "prepare", nano, "--data", stories, *changes, "--json").json["sources"]
    assert source["samples"] == [{"raw": "<b>Short.</b>", "cleaned": "Short."}]


# ---------------------------------------------------------------------- show
def test_show_tells_what_is_trained(nano: Path, tinytale: Callable) -> None:
    chats = nano.parent / "chats.jsonl"
    row = {"question": "Who are you?", "answer": "I am a fox."}
    chats.write_text("\n".join(json.dumps(row | {"answer": f"I am fox {i}."}) for i in range(40)))
    shown = tinytale("data", "show", nano, "--data", chats, "-n", "1", "--set", "model.context=96", "--json").json
    (sample,) = shown["conversations"]["samples"]
    assert "".join(span["text"] for span in sample if span["trained"]).startswith("I am fox 0.")
    assert not any("Who are you?" in span["text"] for span in sample if span["trained"])
    assert shown["conversations"]["examples"] == 40
    said = tinytale(
        "data", "show", nano, "--data", chats, "-n", "1", "--set", "model.context=96", "--template", "alpaca"
    )
    assert "### Response:" in said.out
    assert "I am fox 0." in said.out


def test_show_packed_rows(nano: Path, stories: Path, tinytale: Callable) -> None:
    changes = ("--set", "data.rows=packed", "--set", "data.document_mask=true", "--set", "model.context=500")
    shown = tinytale("data", "show", nano, "--data", stories, *changes, "--json").json
    assert shown["rows"]["kind"] == "packed"
    assert len({span["segment"] for span in shown["samples"][0]}) > 1
    assert 0.5 < shown["filled"]["packed (whole documents)"] <= 1
    assert shown["filled"]["padded to the longest of a batch"] < shown["filled"]["binned by length"]
    assert sum(bar["documents"] for bar in shown["histogram"]) == shown["sources"][0]["documents"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "--data", "nowhere.txt"), "there is no such file"),
        (("show", "--template", "latin"), "latin"),
        (("prepare", "nosuch"), "nosuch"),
        (("prepare", "--set", "data.clean.htm=true"), "html"),
        (("prepare", "--set", "data.store=false", "--set", "data.rows=packed"), "data.rows: windows"),
    ],
)
def test_refusals(nano: Path, tinytale: Callable, arguments: tuple[str, ...], words: str) -> None:
    command, *rest = arguments
    recipe = [] if rest[0] == "nosuch" else [nano]
    assert words in tinytale("data", command, *recipe, *rest).complaint


# ---------------------------------------------------------------------- training on all kinds of data
@pytest.mark.parametrize("rows", ["windows", "documents", "packed"])
@pytest.mark.parametrize("mask", ["true", "false"])
def test_every_kind_of_rows_trains(rows: str, mask: str, nano: Path, tinytale: Callable) -> None:
    changes = ("--set", f"data.rows={rows}", "--set", f"data.document_mask={mask}")
    result = tinytale("train", nano, *changes, *STEPS, "--json")
    assert result.code == 0, result.err
    assert 0 < result.json["val_loss"] < 7


def test_a_mixture(nano: Path, stories: Path, tinytale: Callable) -> None:
    nano.write_text(
        nano.read_text().replace(
            "source: tales, documents: 300",
            f"source: [{{source: tales, documents: 60, weight: 3}}, {{source: {stories}, weight: 1, epochs: 1}}]",
        )
    )
    result = tinytale("train", nano, *STEPS, "--json")
    assert result.code == 0, result.err
    rows = next(event for event in log("nano") if event["event"] == "data")["rows_by_source"]
    assert rows == {"tales": 36, str(stories): 12}  # 6 steps of 2 x 4 rows
    assert "runs out in step" in tinytale("train", nano, "--steps", "10000").complaint


def test_tokens_that_are_not_stored(nano: Path, stories: Path, tinytale: Callable, start: Callable) -> None:
    unstored = ("--data", stories, "--set", "data.store=false", *STEPS, "--set", "train.save_every=3")
    result = tinytale("train", nano, *unstored, "--json")
    assert result.code == 0, result.err
    (folder,) = Path("runs/.cache/shards").iterdir()
    assert (folder / "train.bin").stat().st_size == 0
    assert (folder / "validation.bin").stat().st_size > 0
    again = tinytale("train", nano, *unstored, "--name", "again", "--json")
    assert again.json["val_loss"] == result.json["val_loss"]
    shutil.rmtree("runs/again/checkpoints/step-000006")
    resumed = tinytale("train", "--resume", "--name", "again", "--json")
    assert resumed.code == 0, resumed.err
    assert weights(Path("runs/again")) == weights(Path("runs/nano"))


def test_a_run_goes_on_without_its_source(nano: Path, stories: Path, tinytale: Callable) -> None:
    arguments = ("train", nano, "--data", stories, *STEPS, "--set", "train.save_every=3")
    assert tinytale(*arguments).code == 0
    shutil.rmtree("runs/nano/checkpoints/step-000006")
    expected = weights(Path("runs/nano"))
    content = stories.read_text()
    stories.unlink()
    assert tinytale("train", "--resume").code == 0
    assert weights(Path("runs/nano")) == expected
    assert tinytale("eval", "nano", "--json").code == 0

    shutil.rmtree("runs/.cache/shards")
    assert "there is no such file" in tinytale("eval", "nano").complaint
    stories.write_text(content.replace("the", "teh"))
    assert "is not what it was" in tinytale("eval", "nano").complaint
