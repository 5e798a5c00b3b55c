"""`tinytale plan`: figures before a training, for a recipe, a file or a run; and what `train` does with them."""

import json
from pathlib import Path

import pytest

from tinytale_mlx import recipe_files
from tinytale_mlx.planning.chips import CHIPS


def test_json(tinytale) -> None:
    result = tinytale("plan", "--json").json
    assert result["recipe"] == "tale"
    assert result["parameters"] == 1_115_520
    assert result["tokens"] == 900 * 8 * 192
    assert result["training_flops_per_token"] == 3 * result["forward_flops_per_token"]
    here, m2 = result["forecasts"]
    assert "this machine" in here["machine"]
    assert "measured" in here["basis"]
    assert m2["machine"] == "M2, 8 GB"
    assert "estimated" in m2["basis"]
    assert m2["usable_memory_bytes"] == 5461 << 20
    for one in (here, m2):
        assert one["fits"]
        assert one["largest_batch_size"] > 8
        assert one["memory"]["weights"] == 4 * 1_115_520
        low, high = one["tokens_per_second"]
        assert 0 < low < high
        assert one["hours"] == [pytest.approx(result["tokens"] / rate / 3600) for rate in (high, low)]


def test_text(tinytale) -> None:
    said = tinytale("plan", "tiny-tale").out
    assert "17,306,496 parameters; vocabulary 8,192 (tokenizer.vocab_size)" in said
    for word in ("weights", "activations", "peak", "M2, 8 GB", "largest batch", "estimated", "loss_chunk_tokens"):
        assert word in said


def test_chips(tinytale) -> None:
    chosen = tinytale("plan", "--chip", "m2-8gb", "--chip", "m4-max", "--json").json["forecasts"]
    assert [one["machine"] for one in chosen] == ["M2, 8 GB", "M4 Max, 48 GB"]
    assert len(tinytale("plan", "--chip", "all", "--json").json["forecasts"]) == len(CHIPS)
    assert "M1 Ultra, 128 GB" in tinytale("plan", "--chip", "all").out


def test_a_bad_chip_lists_the_good_ones(tinytale) -> None:
    said = tinytale("plan", "--chip", "m9").complaint
    assert "m2-8gb" in said
    assert "m4-max-128gb" in said


def test_set(tinytale) -> None:
    plain, chunked = (
        tinytale("plan", "tiny-tale", *more, "--chip", "m2", "--json").json["forecasts"][0]["memory"]["logits"]
        for more in ([], ["--set", "train.loss_chunk_tokens=64"])
    )
    assert chunked < plain / 4
    assert "did you mean" in tinytale("plan", "--set", "train.batch_sise=1").complaint


def test_what_does_not_fit(tinytale) -> None:
    said = tinytale("plan", "lillm-300m", "--chip", "m2-8gb").out
    assert "To make it fit on M2, 8 GB: --set train." in said
    huge = tinytale("plan", "lillm-300m", "--chip", "m2-8gb", "--set", "model.hidden_size=8192").out
    assert "Nothing here makes it fit on M2, 8 GB" in huge


def test_a_run(trained: Path, tinytale) -> None:
    result = tinytale("plan", "nano", "--json").json
    assert result["recipe"] == "nano"
    assert result["vocab_size_from"] == "the tokenizer"
    assert result["parameters"] == 37024
    wider = tinytale("plan", "runs/nano", "--set", "model.hidden_size=64", "--json").json
    assert wider["parameters"] > result["parameters"]


def test_a_tokenizer_that_is_there(tok: Path, nano: Path, tinytale) -> None:
    sets = ["--set", "tokenizer.kind=directory", "--set", f"tokenizer.path={tok}", "--set", "tokenizer.vocab_size=999"]
    assert tinytale("plan", *sets, "--json").json["vocab_size"] == 300


def test_no_such_recipe(nano: Path, tinytale) -> None:
    assert "there is no recipe 'tiny-tail'; did you mean tiny-tale?" in tinytale("plan", "tiny-tail").complaint


# ---------------------------------------------------------------------- train asks the planner
def events(kind: str) -> list[dict]:
    lines = Path("runs/nano/log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_train_logs_forecast_and_fact(trained: Path) -> None:
    (forecast,) = events("forecast")
    (end,) = events("end")
    assert forecast["fits"]
    assert forecast["memory"]["peak"] == end["predicted_peak_memory_bytes"] > 1e5
    assert end["peak_memory_bytes"] > 1e5


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which a training may take 2 MB."""
    monkeypatch.setattr("tinytale_mlx.device.usable_memory", lambda: 2 << 20)


@pytest.mark.usefixtures("small_machine")
def test_train_refuses_what_cannot_fit(nano: Path, tinytale) -> None:
    said = tinytale("train", nano).complaint
    assert "MB at its peak" in said
    assert "--set train." in said
    assert not any(Path("runs").glob("nano*"))  # nothing is left behind
    sets = [word for word in said.split() if word.startswith("train.")]
    recipe_files.load(str(nano), [one.rstrip(",") for one in sets])  # what it says can be said


@pytest.mark.usefixtures("small_machine")
def test_train_is_forced(nano: Path, tinytale) -> None:
    assert tinytale("train", nano, "--force", "--steps", "2", "--json").json["steps"] == 2
    assert not events("forecast")[0]["fits"]
