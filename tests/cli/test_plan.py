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


# ---------------------------------------------------------------------- of a fine-tuning
def test_of_a_fine_tuning(trained: Path, tinytale) -> None:
    """By a method, of the latest run too; frozen weights have no gradients and no optimiser."""
    found = {one: tinytale("plan", "nano", "--finetune", one, "--json").json for one in ("lora", "qlora", "full")}
    here, m2 = found["lora"]["forecasts"]
    assert "this machine" in here["machine"]
    assert m2["fits"]
    assert 0 < here["memory"]["peak"] < found["full"]["forecasts"][0]["memory"]["peak"]
    assert (found["lora"]["method"], found["lora"]["context"], found["lora"]["base"]) == ("lora", 32, "nano")
    assert [found[one]["quantized"] for one in found] == [False, True, False]
    assert tinytale("plan", "--finetune", "lora", "--json").json["parameters"] == found["lora"]["parameters"]
    directory = tinytale("plan", "runs/nano/model", "--finetune", "lora", "--json").json
    assert directory["parameters"] == found["lora"]["parameters"]
    larger = tinytale("plan", "nano", "--finetune", "lora", "--set", "train.batch_size=64", "--json").json
    assert larger["forecasts"][0]["memory"]["peak"] > here["memory"]["peak"]
    said = tinytale("plan", "nano", "--finetune", "qlora", "--chip", "m4").out
    for word in ("nano", "method lora, quantized", "examples of up to 32 tokens", "peak, MB", "M4", "yes"):
        assert word in said


def test_of_a_run_that_is_a_fine_tuning(base: Path, tinytale) -> None:
    """And what it logged at its start and its end."""
    short = ["--data", "identity", "--steps", "2", "--json"]
    assert tinytale("finetune", "base", "--dora", *short, "--name", "nano").code == 0
    found = tinytale("plan", "nano", "--json").json
    assert (found["method"], found["base"], found["steps"]) == ("dora", "base", 2)
    (forecast,), (end,) = events("forecast"), events("end")
    assert forecast["memory"]["peak"] == end["predicted_peak_memory_bytes"] > 1e5
    assert forecast["fits"]
    assert 0 < forecast["tokens_per_second"][0] < forecast["tokens_per_second"][1]
    assert end["peak_memory_bytes"] > 1e5


def test_of_a_fine_tuning_refused(base: Path, tinytale) -> None:
    said = tinytale("plan", "base", "--finetune", "zz").complaint
    assert "no method 'zz' to fine-tune with; there are lora, qlora, dora, prompt-tuning, prefix, full" in said
    said = tinytale("plan", "some/where", "--finetune", "lora").complaint
    assert "there is no run and no model directory some/where to plan with" in said
    assert "did you mean tune.rank?" in tinytale("plan", "base", "--finetune", "lora", "--set", "tune.rnak=3").complaint
    assert "there is no chip" in tinytale("plan", "base", "--finetune", "lora", "--chip", "m99").complaint


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
