"""`tinytale finetune`: no flags needed, every method, resumed to the last bit, found by the others."""

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from bases import tune_base

from tinytale_mlx import recipe_files, run, stages
from tinytale_mlx.stages.adapting import load_base

METHODS = ["lora", "qlora", "dora", "prompt-tuning", "prefix", "full"]
SHORT = ["data.source=identity", "train.save_every=3", "train.validate_every=3"]
KEYS = {
    "lora": [],
    "qlora": ["tune.quantize={}"],
    "dora": ["tune.method=dora"],
    "prompt-tuning": ["tune.method=prompt"],
    "prefix": ["tune.method=prefix"],
    "full": ["tune.method=full"],
}


@pytest.fixture(scope="module")
def tuned_folder(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base, and a fine-tuning of it by each method, named by it."""
    folder = tmp_path_factory.mktemp("tuned")
    shutil.copytree(base_folder, folder, symlinks=True, dirs_exist_ok=True)
    for method in METHODS:
        tune_base(folder, method, *KEYS[method], *SHORT, "train.steps=6")
    return folder


@pytest.fixture
def tuned(tuned_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as current folder; to be read, never changed."""
    monkeypatch.chdir(tuned_folder)
    return tuned_folder


def arrays(path: Path) -> dict[str, mx.array]:
    found: Any = mx.load(str(path))
    return found


def same(a: Path, b: Path) -> bool:
    one, other = arrays(a), arrays(b)
    return one.keys() == other.keys() and all(mx.array_equal(one[name], other[name]).item() for name in one)


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_leaves_a_whole_run(method: str, tuned: Path):
    folder = tuned / "runs" / method
    losses = [event["val_loss"] for event in events(folder, "validation")]
    assert all(loss < 6.3 for loss in losses)  # ln 512 = 6.24
    if method not in ("prompt-tuning", "prefix"):  # those need more than six steps
        assert losses[-1] < losses[0]
    assert sorted(recipe_files.load_finetune(folder / "recipe.yaml").model_dump()) >= ["base", "data"]
    assert (folder / "samples.txt").read_text()
    result = folder / ("model" if method == "full" else "adapter")
    assert (result / "chat_template.jinja").read_text().startswith("{% set before")
    assert not (folder / ("adapter" if method == "full" else "model")).exists()


@pytest.mark.parametrize("method", METHODS)
def test_eval_finds_the_loss_that_training_ended_with(method: str, tuned: Path, tinytale: Callable[..., Any]):
    """So what is loaded is what was trained: base, its quantization, and the adapter."""
    said = events(tuned / "runs" / method, "end")[0]["val_loss"]
    assert tinytale("eval", method, "--json").json["loss"] == pytest.approx(said, abs=1e-5)


def test_only_what_is_trained_is_in_a_checkpoint(tuned: Path):
    newest = sorted((tuned / "runs" / "lora" / "checkpoints").iterdir())[-1]
    names = arrays(newest / "model.safetensors")
    assert names
    assert {name.rpartition(".")[2] for name in names} == {"lora_a", "lora_b"}


@pytest.mark.parametrize("method", METHODS)
def test_chat_and_generate_talk_to_the_tuned_model(method: str, tuned: Path, tinytale: Callable[..., Any]):
    said = tinytale("chat", method, "--temperature", "0", "-m", "4", stdin="Who are you?\n")
    assert said.code == 0, said.err
    assert tinytale("generate", method, "-p", "Once", "--temperature", "0", "-m", "4").code == 0


@pytest.mark.parametrize("method", ["lora", "prompt-tuning", "prefix"])
def test_generation_is_that_of_the_model_itself(method: str, tuned: Path):
    """The engine's caches and an adapter, against the whole text read anew for each token."""
    loaded = stages.load(method)
    ids = loaded.encode([{"role": "user", "content": "Who are you?"}])
    written = stages.generate(loaded, [{"role": "user", "content": "Who are you?"}], temperature=0, max_new_tokens=6)
    text = list(ids)
    for one in written.tokens:
        logits = loaded.model(mx.array([text]))[0, -1]
        assert int(logits[: loaded.tokenizer.vocab_size].argmax()) == one
        text.append(one)


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(base: Path, tinytale: Callable[..., Any]):
    keys = [*SHORT, "tune.dropout=0.2", "tune.lora_plus_ratio=4"]
    recipe = stages.finetune_recipe("base", [*keys, "train.steps=6"])
    options = [word for key in keys for word in ("--set", key)]
    assert tinytale("finetune", "base", *options, "--steps", "6", "--name", "whole", "--json").code == 0
    stopped = iter([False, False, False, True])
    result = stages.finetune(recipe, "parts", stop_requested=lambda: next(stopped))
    assert (result.status, result.progress.step) == ("interrupted", 4)
    del result  # with what holds the run's lock
    gc.collect()
    assert tinytale("finetune", "--resume", "--name", "parts", "--json").code == 0
    for name in ("model", "optimizer"):
        files = [
            base / "runs" / run / "checkpoints" / "step-000006" / f"{name}.safetensors" for run in ("whole", "parts")
        ]
        assert same(*files)
    assert same(*[base / "runs" / one / "adapter" / "adapters.safetensors" for one in ("whole", "parts")])


def test_dropout_of_the_adapter_is_on_in_training_alone(base: Path):
    losses = []
    for rate in ("0.0", "0.5"):
        recipe = stages.finetune_recipe("base", ["data.source=identity", "train.steps=3", f"tune.dropout={rate}",
                                                 "train.log_every=1"])  # fmt: skip
        result = stages.finetune(recipe, f"dropout{rate}")
        losses.append([event["loss"] for event in events(base / "runs" / f"dropout{rate}", "step")])
        assert tuple(result.figures)
    assert losses[0][0] == losses[1][0]  # B is zero at first, so there is nothing to drop
    assert losses[0][2] != losses[1][2]


@pytest.mark.parametrize("switch", ["train.gradient_checkpointing=block", "train.loss_chunk_tokens=32"])
def test_memory_switches_change_nothing_but_rounding(switch: str, base: Path):
    ends = []
    for number, extra in enumerate(([], [switch])):
        recipe = stages.finetune_recipe(
            "base", ["data.source=identity", "train.steps=4", "tune.dropout=0.2", "train.final_model=last", *extra]
        )
        stages.finetune(recipe, f"run{number}")
        ends.append(arrays(base / "runs" / f"run{number}" / "adapter" / "adapters.safetensors"))
    for name in ends[0]:
        assert mx.allclose(ends[0][name], ends[1][name], atol=2e-5).item(), name


def test_without_flags_it_tunes_the_latest_run_on_the_embedded_questions(base: Path, tinytale: Callable[..., Any]):
    first = tinytale("finetune", "--steps", "2", "--set", "data.documents=12", "--json").json
    assert Path(first["model"]) == Path("runs/base-lora/adapter")
    assert Path("runs/latest").resolve().name == "base-lora"
    again = tinytale(
        "finetune", "--steps", "2", "--set", "data.documents=12", "--json"
    ).json  # the base, not the adapter
    assert again["run"] == "runs/base-lora-2"
    assert run.Run(Path("runs/base-lora-2")).finetune_recipe().base == "base"


def test_replay_shows_text_of_the_base_in_its_share_of_the_batches(base: Path):
    recipe = stages.finetune_recipe("base", ["data.source=identity", "data.replay=0.5", "train.steps=4",
                                             "train.log_every=1", "train.batch_size=2"])  # fmt: skip
    stages.finetune(recipe, "replay")
    tokens = [event["tokens"] for event in events(base / "runs" / "replay", "step")]
    each = [b - a for a, b in zip([0, *tokens], tokens, strict=False)]
    assert each.count(2 * 64) == 2  # every token of a window is trained


def test_packed_rows_train_too(base: Path):
    recipe = stages.finetune_recipe("base", ["data.source=identity", "data.rows=packed", "train.steps=3"])
    assert stages.finetune(recipe, "packed").progress.step == 3


def test_a_base_in_16_bits_stays_so(base: Path):
    loaded = load_base("base", Path("runs"))
    loaded.model.set_dtype(mx.bfloat16)
    from tinytale_mlx.interop.huggingface import save_model

    save_model(Path("narrow"), loaded.model, loaded.tokenizer, loaded.settings, True)
    recipe = stages.finetune_recipe("narrow", ["data.source=identity", "train.steps=2"])
    stages.finetune(recipe, "narrow-lora")
    found = stages.load("narrow-lora")
    dtypes = {name.rpartition(".")[2]: array.dtype for name, array in _named(found.model)}
    assert dtypes["weight"] == mx.bfloat16
    assert dtypes["lora_b"] == mx.float32


def _named(model: Any) -> list[tuple[str, mx.array]]:
    from tinytale_mlx.models.parameters import named_arrays

    return named_arrays(model.parameters())
