"""The forecast of a step's peak against `mx.get_peak_memory` of a real one: recipes, architectures, switches.

Shapes are reduced so that a step takes a moment, but not so far that arrays become small change. A step is repeated,
since how far MLX works ahead depends on how the machine's cores take turns; the forecast is of the highest peak.
"""

import gc
from collections.abc import Iterable

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx import recipe_files
from tinytale_mlx.benchmarks.steps import step_of
from tinytale_mlx.planning.machine import cpu
from tinytale_mlx.planning.memory import Memory, plan_memory
from tinytale_mlx.planning.parameters import planned_config
from tinytale_mlx.recipe import Recipe
from tinytale_mlx.training.step import cpu_lanes

pytestmark = pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="a GPU has no fixed peak")

STEPS = 2


def measured_peak(recipe: Recipe, lanes: int) -> int:
    """The highest of a few steps, in bytes, without what was there before."""
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    step = step_of(recipe)
    step.lanes = step.lanes[:lanes]
    config, train = planned_config(recipe), recipe.train
    rng = np.random.default_rng(0)
    mx.reset_peak_memory()
    for number in range(STEPS):
        tokens = rng.integers(0, config.vocab_size, (train.accumulate, train.batch_size, config.context + 1))
        weights = np.ones((train.batch_size, config.context), np.float32)
        step(((rows.astype(np.int32), weights, None) for rows in tokens), 1e-4, mx.random.key(number))
    return mx.get_peak_memory() - before


def forecast_peak(recipe: Recipe, lanes: int) -> Memory:
    return plan_memory(planned_config(recipe), recipe.train, cpu(lanes))


def check(name: str, sets: Iterable[str], tolerance: float = 0.1) -> None:
    recipe, lanes = recipe_files.load(name, list(sets)), min(len(cpu_lanes()), 2)
    forecast = forecast_peak(recipe, lanes)
    for _ in range(3):  # how far MLX works ahead on a CPU depends on what else the machine does at that moment
        measured = measured_peak(recipe, lanes)
        if forecast.peak == pytest.approx(measured, rel=tolerance):
            return
    pytest.fail(f"measured {measured:,}, forecast {forecast.peak:,}: {forecast}")


# ---------------------------------------------------------------------- one architecture after the other
SMALL = ["model.context=128", "train.batch_size=4", "tokenizer.vocab_size=512", "train.optimizer=adamw"]
ARCHITECTURES = [
    [],
    ["model.kv_heads=1"],
    ["model.qk_norm=false"],
    ["model.norm=layernorm"],
    ["model.norm_weight=false"],
    ["model.norm_placement=post"],
    *([f"model.activation={name}"] for name in ("gelu", "gelu_tanh", "silu", "relu", "relu2")),
    *([f"model.positions={name}"] for name in ("learned", "sinusoidal", "t5", "alibi", "none")),
    ["model.residual_dropout=0.1", "model.attention_dropout=0.1", "model.embedding_dropout=0.1"],
    ["model.mlp_bias=true", "model.attention_bias=true"],
    ["model.tie_embeddings=false"],
    ["model.distinct_layers=1"],
    ["model.sliding_window=16"],
]


@pytest.mark.parametrize("sets", ARCHITECTURES, ids=str)
def test_architectures(sets: list[str]):
    check("tale", [*SMALL, *sets], tolerance=0.07)


# ---------------------------------------------------------------------- one switch after the other
SWITCHES = [
    ["train.accumulate=2"],
    ["train.batch_size=1"],
    ["train.precision=bfloat16", "model.layers=2"],
    ["train.gradient_checkpointing=attention"],
    ["train.gradient_checkpointing=block", "train.batch_size=16"],
    ["train.gradient_checkpointing=block", "train.gradient_checkpointing_every=2"],
    ["train.loss_chunk_tokens=64"],
    ["train.loss_chunk_tokens=64", "tokenizer.vocab_size=4096"],
    ["train.loss_chunk_tokens=64", "train.gradient_checkpointing=block", "train.batch_size=16"],
    ["tokenizer.vocab_size=4096"],
    ["train.batch_size=16"],
]


@pytest.mark.parametrize("sets", SWITCHES, ids=str)
def test_switches(sets: list[str]):
    check("tale", [*SMALL, *sets])


# ---------------------------------------------------------------------- the optimisers, where they matter most
OPTIMIZERS = [
    *([f"train.optimizer={name}"] for name in ("adamw", "muon", "adafactor", "lion", "adam_mini")),
    *(["train.optimizer=adamw", f"train.optimizer_state={form}"] for form in ("bfloat16", "int8")),
]


@pytest.mark.parametrize("sets", OPTIMIZERS, ids=str)
def test_optimizers(sets: list[str]):
    """With so few tokens that the update is the peak."""
    check("tale", ["train.batch_size=2", "model.context=32", *sets])


# ---------------------------------------------------------------------- recipes
WHOLE = ["tale", "shakespeare", "shakespeare-char"]
"""Small enough to be measured as they are."""
REDUCED = ["model.context=128", "train.batch_size=4", "train.accumulate=1", "model.layers=2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in recipe_files.names() if name not in ("lillm-300m", *WHOLE)])
def test_recipes(name: str):
    """As they are, but for fewer layers and tokens, which is what takes the time."""
    check(name, REDUCED)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_recipes_as_they_are(name: str):
    check(name, [])
