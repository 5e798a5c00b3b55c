"""What a fine-tuning takes over from the run that it tunes, and what it does not."""

from pathlib import Path

import pytest

from tinytale_mlx import recipe_files
from tinytale_mlx.recipe.finetune import RATES
from tinytale_mlx.run import Run
from tinytale_mlx.stages import finetune_recipe


@pytest.mark.parametrize(
    ("before", "overrides", "expected"),
    [
        ("muon", ["tune.method=full"], ("muon", 0.02)),
        ("muon", [], ("adamw", RATES["lora"])),
        ("muon", ["tune.method=full", "train.learning_rate=0.001"], ("muon", 0.001)),
        ("muon", ["tune.method=full", "train.optimizer=adamw"], ("adamw", RATES["full"])),
        ("adamw", ["tune.method=full"], ("adamw", RATES["full"])),
    ],
)
def test_the_optimiser_of_the_base_tunes_all_of_it(
    before: str, overrides: list[str], expected: tuple[str, float], tmp_path: Path
):
    made = recipe_files.load("tale", [f"train.optimizer={before}", "train.learning_rate=0.02"])
    (tmp_path / "tale").mkdir()
    Run(tmp_path / "tale").write_recipe(made)
    train = finetune_recipe("tale", overrides, tmp_path).train
    assert (train.optimizer, train.learning_rate) == expected


def test_a_tuned_model_is_tuned_on_in_the_same_way(tmp_path: Path):
    base = tmp_path / "tuned"
    base.mkdir()
    (base / "recipe.yaml").write_text(
        "name: tuned\nbase: tale\ntune: {method: full}\ntrain: {optimizer: muon, learning_rate: 0.005}\n"
    )
    train = finetune_recipe("tuned", ["tune.method=full"], tmp_path).train
    assert (train.optimizer, train.learning_rate) == ("muon", 0.005)
    assert finetune_recipe("elsewhere/model", ["tune.method=full"], tmp_path).train.optimizer == "adamw"
