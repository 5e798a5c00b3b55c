"""Every benchmark: its question, its options and its quick preset; one of them is measured for real."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx import benchmarks
from tinytale_mlx.benchmarks import NAMES, question, runner

FOLDER = Path(benchmarks.__file__).parent
SHARED = {"quick", "peers", "json", "out"}
OPTIONS = {
    "training": {"size", "recipe", "batch_size", "rounds", "steps"},
    "memory": {"shape", "rounds", "only"},
    "forecast": {"recipe", "set", "grown", "batches", "contexts"},
    "generation": {"model", "bits", "rounds", "prompt", "tokens"},
    "tokenizers": {"data", "documents", "repeat_text", "rounds", "long"},
    "data": {"data", "documents", "fill", "rounds", "text", "large"},
    "finetuning": {"data", "valid", "steps", "rounds", "tokens", "layers", "methods", "programs"},
    "rlhf": {"size", "rows", "tokens", "rounds"},
    "quality": {"shakespeare", "tinystories", "wikitext", "runs", "seeds", "steps", "every", "documents"},
    "ablation": {"data", "variants", "rates", "seeds", "steps"},
    "scaling": {"recipe", "rounds", "steps", "processes", "port"},
    "soak": {"kills", "seed"},
}
"""What people have in their scripts: adding to them means adding here."""


def test_there_are_no_others():
    assert set(OPTIONS) == set(NAMES)
    with_measure = {file.stem for file in FOLDER.glob("*.py") if "\ndef measure(" in file.read_text()}
    assert with_measure == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_options(name: str):
    assert set(vars(runner.parse(name, []))) == OPTIONS[name] | SHARED


@pytest.mark.parametrize("name", NAMES)
def test_a_question_and_a_quick_preset(name: str):
    module: Any = importlib.import_module(f"tinytale_mlx.benchmarks.{name}")
    assert question(name) == module.__doc__.splitlines()[0]
    assert question(name).endswith("?")
    given, quick = vars(runner.parse(name, [])), vars(runner.parse(name, ["--quick"]))
    assert module.QUICK.items() <= quick.items()
    assert {key for key in quick if quick[key] != given[key]} == {*module.QUICK, "quick"}


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_preset_is_one_that_could_be_typed(name: str):
    """Defaults are not checked by argparse: here they are, against types and choices."""
    module: Any = importlib.import_module(f"tinytale_mlx.benchmarks.{name}")
    words: list[str] = []
    for key, value in module.QUICK.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{key.replace('_', '-')}", *map(str, values)]
    given = vars(runner.parse(name, words))
    assert {key: given[key] for key in module.QUICK} == module.QUICK


@pytest.mark.parametrize("name", NAMES)
def test_each_file_can_be_run(name: str):
    assert (FOLDER / f"{name}.py").read_text().endswith(f'\n\nif __name__ == "__main__":\n    main("{name}")\n')


def test_there_is_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        runner.main("soak", ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: tinytale bench soak")
    assert "--kills" in text


def measured(name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """The report of a benchmark that is really run, as it says it and as it writes it."""
    command = [sys.executable, "-m", f"tinytale_mlx.benchmarks.{name}", *arguments, "--json", "--out", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    content = json.loads(ran.stdout)
    assert content == json.loads((folder / f"{name}.json").read_text())
    return content


def test_a_peak_is_really_measured(tmp_path: Path):
    tiny = ["model.layers=1", "model.context=32", "train.batch_size=2", "tokenizer.vocab_size=64"]
    content = measured("forecast", tmp_path, "--recipe", "tale", "--set", *tiny, "--batches", "1", "--contexts")
    plain, all_on = content["tables"][0]["rows"]
    assert [plain["key"], all_on["key"]] == [["tale", "plain"], ["tale", "all on"]]
    assert 0.5 < plain["cells"]["measured beside forecast"] < 2
    [line] = [line for line in content["plots"][0]["lines"] if line["name"] == "plain"]
    assert [(point["x"], point["y"]) for point in line["points"]] == [
        (plain["cells"]["forecast"], plain["cells"]["measured"])
    ]


@pytest.mark.slow
def test_a_step_is_really_measured(tmp_path: Path):
    options = ["--batch-size", "1", "--size", "1m", "--rounds", "2", "--steps", "1"]
    content = measured("training", tmp_path, *options)
    ours, theirs = content["tables"][0]["rows"]
    assert [ours["key"], theirs["key"]] == [["1m", "tinytale"], ["1m", "mlx-lm"]]
    for row in (ours, theirs):
        assert len(row["cells"]["speed"]["values"]) == 2
        assert row["cells"]["speed"]["min"] > 0
        assert row["cells"]["peak by MLX"] > 3 * 4 * row["cells"]["parameters"]  # weights and two moments at least
    assert ours["cells"]["tinytale beside it"]["values"] == [1.0, 1.0]


def test_a_model_that_peers_do_not_have_is_said(tmp_path: Path):
    from tinytale_mlx import recipe_files
    from tinytale_mlx.benchmarks.apart import Unavailable
    from tinytale_mlx.benchmarks.training import check_plain

    check_plain(recipe_files.load("tiny-tale"))
    with pytest.raises(Unavailable, match=r"model\.qk_norm=True, .*train\.optimizer=muon"):
        check_plain(recipe_files.load("tale"))


def test_no_room_is_said(monkeypatch: pytest.MonkeyPatch):
    from tinytale_mlx import device
    from tinytale_mlx.benchmarks import forecast
    from tinytale_mlx.benchmarks.results import Report

    monkeypatch.setattr(device, "usable_memory", lambda: 10_000_000)
    report = Report("forecast", "?")
    given = argparse.Namespace(recipe=["tale"], set=[], grown="tale", batches=[], contexts=[])
    forecast.measure(given, report)
    plain = report.tables[0].rows[0]
    assert plain.missing
    assert "10 MB can be used here" in plain.missing
    assert plain.cells == {}


def test_a_text_that_is_not_given_is_said():
    from tinytale_mlx.benchmarks import quality
    from tinytale_mlx.benchmarks.results import Report

    report = Report("quality", "?")
    quality.measure(runner.parse("quality", ["--runs", "shakespeare", "WikiText-2 sample"]), report)
    assert [row.missing for row in report.tables[0].rows] == [
        "its text is not given: --shakespeare FILE",
        "its text is not given: --wikitext FILE",
    ]


def test_an_ablation_tries_every_rate_and_then_other_seeds_with_the_best():
    from tinytale_mlx.benchmarks.ablation import missing

    done: list[dict[str, Any]] = []
    losses = {("a", 1.0): 3.0, ("a", 2.0): 2.0, ("b", 5.0): 1.0}
    jobs = []
    while job := next(missing(done, {"a": [1.0, 2.0], "b": [5.0]}, [7, 8]), None):
        variant, rate, seed = job
        jobs.append(job)
        done.append({"variant": variant, "learning_rate": rate, "seed": seed, "val_loss": losses[variant, rate]})
    assert jobs == [("a", 1.0, 7), ("a", 2.0, 7), ("b", 5.0, 7), ("a", 2.0, 8), ("b", 5.0, 8)]
