"""`tinytale train`: what it says, what it leaves behind, and whose text it takes."""

import json
import math
import os
from pathlib import Path

import pytest
import yaml

from tinytale_mlx.recipe_files import load

FAST = ["--steps", "2", "--set", "train.sample_every=100", "--set", "train.save_every=100"]
"""Little of everything, for tests about what comes before the training."""


def events(run: Path, kind: str) -> list[dict]:
    lines = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    return [event for event in lines if event["event"] == kind]


# ---------------------------------------------------------------------- what it leaves and says
def test_json(finished) -> None:
    result = finished[1].json
    assert result["run"] == "runs/nano"
    assert result["model"] == "runs/nano/model"
    assert result["status"] == "finished"
    assert result["steps"] == 24
    assert result["tokens"] == 24 * 2 * 4 * 32
    assert 0 < result["val_loss"] < math.log(512)
    assert 0 < result["train_loss"] < math.log(512)
    assert 0 < result["val_bits_per_byte"] < 8
    assert result["val_perplexity"] == pytest.approx(math.exp(result["val_loss"]))
    assert result["tokens_per_second"] > 0
    assert 1e5 < result["peak_memory_bytes"] < 1e9


def test_run_directory(trained: Path) -> None:
    run = trained / "runs" / "nano"
    assert os.readlink(trained / "runs" / "latest") == "nano"
    assert load(str(run / "recipe.yaml")) == load("nano.yaml")
    assert yaml.safe_load((run / "recipe.yaml").read_text())["train"]["beta1"] == 0.9  # resolved: defaults too
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        assert (run / "model" / name).is_file()
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-000020", "step-000024"]
    assert (run / "samples.txt").read_text().count("--- after") == 3


def test_log(trained: Path) -> None:
    run = trained / "runs" / "nano"
    steps = events(run, "step")
    assert [event["step"] for event in steps] == list(range(1, 25))
    assert steps[0]["loss"] == pytest.approx(math.log(512), abs=0.2)  # a fresh model knows nothing
    assert steps[0]["tokens_per_second"] is None  # that step compiled
    assert all(event["tokens_per_second"] > 0 for event in steps[1:])
    assert [event["step"] for event in events(run, "validation")] == [10, 20, 24]
    assert [event["step"] for event in events(run, "sample")] == [10, 20, 24]
    (start,), (end,) = events(run, "start"), events(run, "end")
    assert start["parameters"] == 37024
    assert end["status"] == "finished"


def test_words(nano: Path, tinytale) -> None:
    """Without a terminal: a line now and then, none of them broken, and what to do next."""
    result = tinytale("train", nano)
    assert result.code == 0
    assert result.err == ""
    assert "training the tokenizer (byte-level BPE, 512 tokens)" in result.out
    assert "runs/nano: 37k parameters, vocabulary 512" in result.out
    assert "after 24 steps" in result.out
    assert result.out.endswith("the model is in runs/nano/model; now try:\n  tinytale chat nano\n")
    assert "\x1b" not in result.out


def test_done_already(nano: Path, tinytale) -> None:
    assert tinytale("train", nano, *FAST).code == 0
    again = tinytale("train", "--resume")
    assert again.code == 0
    assert "all 2 steps are done already" in again.out
    assert "validation loss" in again.out


def test_a_single_step_has_no_speed(nano: Path, tinytale) -> None:
    result = tinytale("train", nano, "--steps", "1", "--json").json
    assert result["tokens_per_second"] is None
    assert "tokens/s" not in tinytale("train", "--resume").out


# ---------------------------------------------------------------------- names and overrides
def test_names(nano: Path, tinytale) -> None:
    for expected in ("nano", "nano-2", "nano-3"):
        assert tinytale("train", nano, *FAST, "--json").json["run"] == f"runs/{expected}"
    assert tinytale("train", nano, *FAST, "--name", "my.first_1", "--json").json["run"] == "runs/my.first_1"
    assert os.readlink("runs/latest") == "my.first_1"


def test_flags_are_short_for_set(nano: Path, tinytale) -> None:
    flags = ["--steps", "2", "--batch-size", "3", "--learning-rate", "1e-4", "--seed", "5"]
    assert tinytale("train", nano, *flags).code == 0
    recipe = load("runs/nano/recipe.yaml")
    assert (recipe.train.steps, recipe.train.batch_size, recipe.train.learning_rate) == (2, 3, 1e-4)
    assert recipe.seed == 5


def test_resume_with_overrides_keeps_the_rest(nano: Path, tinytale) -> None:
    """`--set` on a resumed run changes that run's recipe, not the demo's."""
    assert tinytale("train", nano, *FAST).code == 0
    assert "(train.steps: 2 -> 9)" in tinytale("train", "--resume", "--steps", "9").complaint
    assert tinytale("train", "--resume", "--steps", "2").code == 0


def test_runs_elsewhere(nano: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tinytale("train", nano, *FAST, "--runs", "else/where")
    assert result.out.endswith("tinytale chat else/where/nano\n")
    monkeypatch.setenv("TINYTALE_RUNS", "else/where")
    assert tinytale("info", "--json").json["model"] == "else/where/nano/model"


# ---------------------------------------------------------------------- one's own text
LINES = [f"The {animal} number {i} went home.\n" for i in range(300) for animal in ("cat", "dog")]


def test_own_text(nano: Path, tinytale) -> None:
    Path("book.txt").write_text("".join(LINES))
    result = tinytale("train", nano, *FAST, "--data", "book.txt", "--json")
    assert result.code == 0
    assert not (Path(result.json["model"]) / "chat_template.jinja").exists()  # it has read no conversation


def test_text_too_small_for_the_vocabulary(nano: Path, tinytale) -> None:
    """A word about it, in one plain line."""
    Path("book.txt").write_text("The cat went home.\n" * 300)
    result = tinytale("train", nano, *FAST, "--data", "book.txt")
    assert result.code == 0
    (line,) = result.err.splitlines()
    assert line.startswith("tinytale: the vocabulary has ")
    assert line.endswith(" tokens, not 512: the text has no more pairs that are frequent enough")


def test_own_text_in_several_forms(nano: Path, tinytale) -> None:
    folder = Path("tales")
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES))
    (folder / "b.txt").write_text("".join(LINES))
    for data in (["tales"], ["tales/*.jsonl"], ["tales/a.jsonl", "--data", "tales/b.txt"]):
        assert tinytale("train", nano, *FAST, "--data", *data).code == 0


def test_a_run_keeps_the_text_that_it_was_trained_on(nano: Path, tinytale) -> None:
    Path("book.txt").write_text("".join(LINES))
    assert tinytale("train", nano, *FAST, "--data", "book.txt").code == 0
    score = tinytale("eval", "--json").json
    Path("book.txt").write_text("Something else.\n" * 500)
    assert tinytale("eval", "--json").json == score
    Path("book.txt").unlink()
    assert tinytale("eval", "--json").json == score
    assert tinytale("train", "--resume").code == 0


def test_invalid_utf8_can_be_replaced(nano: Path, tinytale) -> None:
    Path("book.txt").write_bytes(b"\xff" + "".join(LINES).encode())
    arguments = ["train", nano, *FAST, "--data", "book.txt"]
    assert "line 1: byte 0xff" in tinytale(*arguments).complaint
    assert tinytale(*arguments, "--set", "data.invalid_utf8=replace").code == 0


def test_shakespeare(nano: Path, tinytale, shared_data: Path) -> None:
    text = shared_data / "shakespeare" / "input.txt"
    small = ["--set", "model.layers=1", "--set", "model.hidden_size=16", "--set", "train.warmup_steps=0"]
    few = ["--set", "train.validation_batches=1", "--set", "generate.max_new_tokens=5"]
    result = tinytale("train", "shakespeare-char", "--data", text, *FAST, *small, *few)
    assert result.code == 0, result.err
    assert tinytale("info", "--json").json["vocab_size"] == 65


@pytest.mark.slow
def test_tinystories(nano: Path, tinytale, shared_data: Path) -> None:
    result = tinytale("train", nano, *FAST, "--data", shared_data / "tinystories" / "train.jsonl", "--json")
    assert result.code == 0, result.err
