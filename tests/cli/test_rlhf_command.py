"""`tinytale rlhf`: every command from a base to a model that the others find, and the figures that it gives."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from bases import tune_base
from preferring import SMALL, rows, write_rows

from tinytale_mlx import recipe_files, stages
from tinytale_mlx.alignment.reward_model import load_reward_model
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.stages.adapting import load_fused
from tinytale_mlx.tuning import load_adapter

Tinytale = Callable[..., Any]
STEPS = {
    "reward": ["--steps", "8", "--batch-size", "8", "--set", "train.validate_every=4"],
    "ppo": ["--steps", "3", "--batch-size", "8", "--set", "ppo.minibatches=2", "--set", "train.validate_every=2"],
    "dpo": ["--steps", "6", "--batch-size", "8", "--full", "--reward-model", "base-reward"],
    "grpo": ["--steps", "3", "--batch-size", "4", "--group-size", "3", "--reward-model", "base-reward"],
}
KINDS = list(STEPS)


@pytest.fixture(scope="module")
def aligned(base_folder: Path, tmp_path_factory: pytest.TempPathFactory, tinytale_once: Tinytale) -> Any:
    """A folder with the base and a run of each kind, and what each printed."""
    folder = tmp_path_factory.mktemp("aligned")
    shutil.copytree(base_folder, folder, symlinks=True, dirs_exist_ok=True)
    write_rows(folder / "pairs.jsonl", rows())
    said = {}
    with contextlib.chdir(folder):
        for kind in KINDS:  # without a MODEL: whatever the latest run was aligned from
            said[kind] = tinytale_once("rlhf", kind, *SMALL, *STEPS[kind], "--json")
    return folder, said


@pytest.fixture
def folder(aligned: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the current one; to be read, never changed."""
    monkeypatch.chdir(aligned[0])
    return aligned[0]


@pytest.fixture
def own(base: Path) -> Path:
    """A folder of one's own with the base and the rows, as current folder."""
    write_rows(base / "pairs.jsonl", rows())
    return base


def events(folder: Path, name: str, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "runs" / name / "log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


# ---------------------------------------------------------------------- what is said
@pytest.mark.parametrize("kind", KINDS)
def test_the_figures(kind: str, aligned: Any):
    found = aligned[1][kind].json
    assert found["kind"] == kind
    assert found["status"] == "finished"
    assert found["tokens_per_second"] > 0
    assert found["peak_memory_bytes"] > 1e6
    assert Path(aligned[0], found["model"]).is_dir()
    if kind == "reward":
        assert {"accuracy", "margin", "calibration", "accuracy_chosen_longer", "pairs"} <= found.keys()
        return
    assert {"score_before", "score_after", "score_std_before", "kl", "kl_target", "beta"} <= found.keys()
    assert found["perplexity_before"] > 1
    assert found["perplexity_after"] != found["perplexity_before"]


def test_the_reward_model_knows_smiles_and_speaks_in_deviations(aligned: Any):
    found = aligned[1]["reward"].json
    assert found["accuracy"] == 1.0
    assert found["reward_mean"] == pytest.approx(0, abs=1e-5)
    assert found["reward_std"] == pytest.approx(1, abs=1e-5)
    model = load_reward_model(aligned[0] / "runs/base-reward/reward")
    assert (model.bias, model.gain) == (found["reward_bias"], found["reward_gain"])


def test_ppo_begins_where_the_reference_is(folder: Path):
    first, *others = events(folder, "base-ppo", "step")
    assert first["kl"] == 0.0
    assert first["first_ratio"] == 1.0
    assert any(other["kl"] != 0 for other in others)
    assert first["beta"] == 0.2
    assert others[-1]["beta"] < 0.2  # the KL is below its target


def test_dpo_begins_at_ln_2_and_comes_to_prefer_smiles(folder: Path, aligned: Any):
    steps = events(folder, "base-dpo", "step")
    assert steps[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert aligned[1]["dpo"].json["val_accuracy"] > 0.9


def test_samples_stand_beside_those_from_before(folder: Path):
    for name in ("base-ppo", "base-dpo", "base-grpo"):
        found = events(folder, name, "sample")
        assert len(found) == 2
        assert all({"text", "before", "prompt"} <= event.keys() for event in found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipe_is_kept_and_read_again(kind: str, folder: Path):
    path = folder / "runs" / f"base-{kind}" / "recipe.yaml"
    recipe = recipe_files.load_align(path)
    assert recipe.kind == kind
    assert recipe_files.dump(recipe) == path.read_text()
    assert recipe.method.response_tokens < 128  # it was fitted to data and model


# ---------------------------------------------------------------------- what the others do with it
@pytest.mark.parametrize("name", ["base-ppo", "base-dpo", "base-grpo"])
def test_the_others_find_an_aligned_model(name: str, folder: Path, tinytale: Tinytale, tmp_path: Path):
    base = tinytale("eval", "base", "--json").json
    found = tinytale("eval", name, "--json").json
    assert found["tokens"] == base["tokens"]
    assert found["loss"] != base["loss"]
    assert tinytale("generate", name, "-p", "The cat", "--json").code == 0
    if name != "base-dpo":
        one, other = (tinytale("generate", *how, "-p", "The", "--json").json for how in ([name], ["--adapter", name]))
        assert one["completions"] == other["completions"]
        fused = tinytale("fuse", name, "--output", tmp_path / "fused", "--json")
        assert fused.json["changed"] > 0


def test_a_reward_model_says_what_it_is(folder: Path, tinytale: Tinytale):
    for command in ("chat", "info", "generate"):
        said = tinytale(command, "base-reward").complaint
        assert "is a reward model" in said
        assert "rlhf ppo --reward-model base-reward" in said


@pytest.mark.slow
def test_what_was_aligned_can_be_aligned_again(folder: Path, tinytale: Tinytale, tmp_path: Path):
    runs = tmp_path / "runs"
    shutil.copytree(folder / "runs", runs, symlinks=True)
    how = ["--runs", runs, "--steps", "2", "--batch-size", "8", "--json"]
    found = tinytale("rlhf", "dpo", "base-ppo", *SMALL, *how)
    assert found.json["run"].endswith("base-ppo-dpo")
    with_both = stages.load("base-ppo-dpo", runs)
    first = named_arrays(load_fused("base-ppo", runs).model.parameters())
    below = named_arrays(with_both.model.parameters())
    named = {name.replace(".base.", "."): array for name, array in below}
    assert all(mx.array_equal(named[name], array).item() for name, array in first)


@pytest.mark.slow
def test_an_adapter_of_a_fine_tuning_is_part_of_the_base(own: Path, tinytale: Tinytale):
    tune_base(own, "sft", "data.source=identity", "train.steps=3")
    for kind in ("reward", "ppo"):
        assert tinytale("rlhf", kind, *SMALL, *STEPS[kind], "--json").code == 0
    recipe = recipe_files.load_align(own / "runs/sft-ppo/recipe.yaml")
    assert (recipe.base, recipe.model_dump()["score"]["reward_model"]) == ("sft", "sft-reward")
    assert tinytale("generate", "sft-ppo", "-p", "The cat").code == 0
    refused = tinytale("finetune", "sft-ppo").complaint
    assert "tinytale fuse sft-ppo" in refused


# ---------------------------------------------------------------------- learning
@pytest.mark.slow
def test_a_function_of_ones_own_is_learned_from(own: Path, tinytale: Tinytale):
    (own / "mine.py").write_text("def vowels(sample):\n    return sample.response.count('e') / 4\n")
    how = ["--method", "grpo", "--full", "--beta", "0", "--learning-rate", "0.01", "--reward", "mine.py:vowels"]
    found = tinytale("rlhf", "grpo", "base", *SMALL, *how, "--steps", "15", "--batch-size", "8", "--json").json
    assert found["score_after"] > found["score_before"] + found["score_std_before"]
    assert found["kl"] > 1


def test_of_a_constant_reward_nothing_is_learned(own: Path, tinytale: Tinytale):
    (own / "mine.py").write_text("def same(sample):\n    return 1\n")
    how = ["--steps", "2", "--batch-size", "4", "--group-size", "2", "--reward", "mine.py:same"]
    assert tinytale("rlhf", "grpo", "base", *SMALL, *how, "--json").code == 0
    weights = load_adapter(own / "runs/base-grpo/adapter").weights
    assert not any(array.any().item() for name, array in weights.items() if name.endswith("lora_b"))


def test_the_answer_of_a_question_is_a_reward(own: Path, tinytale: Tinytale):
    write_rows(own / "sums.jsonl", [{"question": f"What is {i} and 1? ", "answer": str(i + 1)} for i in range(40)])
    how = ["--data", "sums.jsonl", "--reward", "answer", "--reward", "length:5", "--steps", "1", "--batch-size", "4"]
    found = tinytale("rlhf", "grpo", "base", *how, "--set", "grpo.response_tokens=8", "--json").json
    assert found["score_before"] < 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ipo", "orpo", "simpo", "kto", "cdpo"])
def test_the_kin_of_dpo(method: str, own: Path, tinytale: Tinytale):
    how = ["--method", method, "--steps", "3", "--batch-size", "8", "--set", "train.validate_every=1"]
    assert tinytale("rlhf", "dpo", "base", *SMALL, *how, "--json").json["val_loss"] > 0
    losses = [event["val_loss"] for event in events(own, "base-dpo", "validation")]
    assert losses[1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", [["--set", "ppo.critic=shared"], ["--full"], ["--set", "ppo.ptx_coefficient=0.5"]])
def test_ppo_with_other_critics_and_with_other_text(how: list[str], own: Path, tinytale: Tinytale):
    how = [*STEPS["ppo"], "--reward", "length:4", *how]
    assert tinytale("rlhf", "ppo", "base", *SMALL, *how, "--json").json["kl"] != 0
