"""Every built-in recipe is what it says and can be trained; and every key that a recipe may have does something."""

import ast
from importlib import resources
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from pydantic import BaseModel

import tinytale_mlx
from tinytale_mlx import recipe_files, stages
from tinytale_mlx.models.parameters import count_parameters
from tinytale_mlx.recipe import (
    ALIGNMENTS,
    AlignDataRecipe,
    DataRecipe,
    ExamplesRecipe,
    FinetuneRecipe,
    GenerateRecipe,
    ModelConfig,
    Recipe,
    SourceRecipe,
    TokenizerRecipe,
    TrainRecipe,
)
from tinytale_mlx.recipe.align import GroupRecipe, PPORecipe, PreferenceRecipe, RewardRecipe
from tinytale_mlx.recipe.align_run import ScoreRecipe, WatchRecipe
from tinytale_mlx.recipe.tuning import QuantizeRecipe, TuneRecipe
from tinytale_mlx.training.losses import next_token_loss
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.step import Step

BUILT_IN = recipe_files.names()


# ---------------------------------------------------------------------- the built-in recipes
def test_there_is_one_for_each_reference():
    expected = {"tiny-tale", "tiny-tale-2", "tiny-llm", "tinyllm-tiny", "tinyllm-small", "tinyllm-medium"}
    assert expected | {"tale", "lillm", "lillm-300m", "shakespeare-char", "shakespeare", "stories"} <= set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_recipe_is_short_and_says_its_name(name: str):
    text = (resources.files("tinytale_mlx.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30
    recipe = recipe_files.load(name)
    assert recipe.name == name
    assert recipe.description


PIPELINE = ["tokenizer.vocab_size=32768", "model.intermediate_size=1536", "model.layers=6"]
SMALL_TEST = ["tokenizer.vocab_size=8192", "model.hidden_size=256", "model.layers=6", "model.heads=8",
              "model.intermediate_size=768"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "overrides", "count"),
    [
        ("tiny-tale", [], 17_306_496),
        ("tiny-tale-2", [], 18_880_896),
        ("tiny-tale-2", PIPELINE, 25_564_032),
        ("tiny-tale-2", SMALL_TEST, 6_622_464),
        ("tiny-llm", [], 76_945_408),
        ("tiny-llm", ["model.tie_embeddings=true"], 51_213_824),
        ("tinyllm-tiny", [], 9_851_904),
        ("tinyllm-small", [], 22_057_984),
        ("tinyllm-medium", [], 64_565_760),
        ("lillm", [], 39_596_544),
        ("lillm-300m", [], 291_554_304),
        ("shakespeare-char", [], 804_096),
        ("shakespeare", [], 800_256),
        ("shakespeare-long", [], 800_256),
    ],
)
def test_parameter_counts(name: str, overrides: list[str], count: int):
    assert count_parameters(stages.blueprint(recipe_files.load(name, overrides))) == count


SMALL_DATA = ["tokenizer.vocab_size=64", "model.vocab_size=64", "model.context=12", "train.batch_size=2",
              "train.accumulate=2", "train.warmup_steps=0"]  # fmt: skip


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_recipe_takes_a_step(name: str, dice: np.random.Generator):
    recipe = recipe_files.load(name, SMALL_DATA)
    if recipe.model.layers > 8:
        recipe = recipe_files.load(name, [*SMALL_DATA, "model.layers=2"])
    model = stages.blueprint(recipe)
    tokens = dice.integers(0, 64, (2, 13)).astype(np.int32)
    weights = np.ones((2, 12), np.float32)

    def loss() -> float:
        ids = mx.array(tokens)
        return (next_token_loss(model(ids[:, :-1]), ids, mx.array(weights)) / weights.size).item()

    before = loss()
    assert before == pytest.approx(np.log(64), abs=0.7)  # it starts out knowing nothing
    step = Step(model, make_optimizer(recipe.train), recipe.train.max_grad_norm)
    batches = [(tokens, weights)] * recipe.train.accumulate
    result = step(batches, recipe.train.learning_rate, mx.random.key(0))
    assert result.tokens == 48
    assert result.nats / result.tokens == pytest.approx(before, abs=0.5)  # but for dropout
    assert loss() < before - 0.01


# ---------------------------------------------------------------------- every key does something
@pytest.mark.parametrize(
    "section",
    [
        *(DataRecipe, SourceRecipe, TokenizerRecipe, ModelConfig, TrainRecipe, GenerateRecipe, Recipe),
        *(ExamplesRecipe, FinetuneRecipe, TuneRecipe, QuantizeRecipe, AlignDataRecipe, ScoreRecipe, WatchRecipe),
        *(RewardRecipe, PreferenceRecipe, PPORecipe, GroupRecipe, *ALIGNMENTS.values()),
    ],
)
def test_every_key_is_read_somewhere(section: type[BaseModel]):
    """No dead keys: outside the recipe's own description and the reading of files, somebody asks for it."""
    package = Path(tinytale_mlx.__file__).parent
    read: set[str] = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    assert sorted(set(section.model_fields) - read) == []
