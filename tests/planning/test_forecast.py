"""Does it fit, how large can a batch be, what helps: the planner's conclusions, whatever the figures below them are."""

from dataclasses import replace
from typing import Any

import pytest

from tinytale_mlx import recipe_files
from tinytale_mlx.errors import UserError
from tinytale_mlx.planning.chips import CHIPS
from tinytale_mlx.planning.flops import flops_per_token
from tinytale_mlx.planning.forecast import Forecast, forecast
from tinytale_mlx.planning.machine import Machine, cpu, mac, measured_teraflops
from tinytale_mlx.planning.memory import plan_memory
from tinytale_mlx.planning.parameters import planned_config
from tinytale_mlx.recipe import Recipe
from tinytale_mlx.stages.planning import check_memory, plan

M2 = CHIPS["m2-8gb"]


def of(recipe: Recipe, machine: Machine | None = None, tokens: int = 10**6) -> Forecast:
    return forecast(planned_config(recipe), recipe.train, machine or mac(M2, recipe.model), tokens)


def with_memory(recipe: Recipe, usable: int) -> Machine:
    return replace(mac(M2, recipe.model), usable=usable)


def test_the_parts_sum_to_the_peak():
    memory = of(recipe_files.load("tiny-tale")).memory
    parts = memory.to_json()
    assert parts.pop("peak") == sum(value for value in parts.values() if isinstance(value, int)) > 0


@pytest.mark.parametrize("name", ["tale", "tiny-tale", "lillm"])
def test_the_largest_batch_is_the_largest(name: str):
    recipe = recipe_files.load(name)
    machine = mac(M2, recipe.model)
    largest = of(recipe).largest_batch
    assert largest > 0
    fits = [of(recipe_files.load(name, [f"train.batch_size={size}"]), machine).fits for size in (largest, largest + 1)]
    assert fits == [True, False]


def test_what_does_not_fit_comes_with_what_makes_it_fit():
    recipe = recipe_files.load("lillm-300m")
    found = of(recipe)
    assert not found.fits
    assert found.remedy
    sets = [one for one in found.remedy if one.startswith("train.")]
    assert sets == found.remedy
    assert of(recipe_files.load("lillm-300m", sets)).fits
    for one in sets:  # each is needed
        if "batch_size" not in one and "accumulate" not in one:
            assert not of(recipe_files.load("lillm-300m", [other for other in sets if other != one])).fits


def test_a_remedy_keeps_the_tokens_of_a_step():
    recipe = recipe_files.load("lillm-300m")
    less = recipe_files.load("lillm-300m", of(recipe).remedy).train
    assert less.batch_size * less.accumulate == recipe.train.batch_size * recipe.train.accumulate


def test_nothing_helps_a_model_that_is_far_too_large():
    recipe = recipe_files.load("lillm-300m", ["model.hidden_size=8192"])
    found = of(recipe)
    assert found.remedy == []
    assert found.largest_batch == 0
    with pytest.raises(UserError, match="smaller model"):
        check_memory(recipe, found)


def test_each_suggestion_saves_what_it_says():
    recipe = recipe_files.load("tiny-tale")
    found = of(recipe)
    assert {one.set for one in found.suggestions} >= {"train.gradient_checkpointing=block"}
    for one in found.suggestions:
        after = of(recipe_files.load("tiny-tale", one.set.split()))
        assert found.memory.peak - after.memory.peak == one.saves > 0


def test_what_is_on_is_not_suggested():
    sets = ["train.gradient_checkpointing=block", "train.loss_chunk_tokens=64", "train.optimizer_state=int8",
            "train.precision=bfloat16", "train.batch_size=1"]  # fmt: skip
    assert of(recipe_files.load("tiny-tale", sets)).suggestions == []
    lion = of(recipe_files.load("tiny-tale", ["train.optimizer=lion"]))
    assert not any("optimizer_state" in one.set for one in lion.suggestions)


def test_sixteen_bits_are_not_suggested_to_a_cpu():
    recipe = recipe_files.load("tiny-tale")
    machine = replace(mac(M2, recipe.model), backend=cpu(2))
    assert not any("precision" in one.set for one in of(recipe, machine).suggestions)


def test_check_memory_names_the_switches():
    recipe = recipe_files.load("tiny-tale")
    found = of(recipe, with_memory(recipe, of(recipe).memory.peak * 2 // 3))
    with pytest.raises(UserError) as raised:
        check_memory(recipe, found)
    said = str(raised.value)
    assert "\n" not in said
    assert all(f"--set {one}" in said for one in found.remedy)
    assert found.remedy
    assert "--force" in said
    check_memory(recipe, of(recipe))  # fits


@pytest.mark.parametrize(
    "sets",
    [
        ["train.loss_chunk_tokens=128"],
        ["train.gradient_checkpointing=attention"],
        ["train.gradient_checkpointing=block"],
        ["train.gradient_checkpointing=block", "train.gradient_checkpointing_every=2"],
        ["train.batch_size=4"],
        ["train.optimizer=lion"],
        ["train.optimizer_state=int8"],
        ["model.context=128"],
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", [cpu(2), mac(M2, recipe_files.load("tale").model).backend], ids=["cpu", "mac"])
def test_switches_save_memory(sets: list[str], backend: Any):
    plain, less = recipe_files.load("tiny-tale"), recipe_files.load("tiny-tale", sets)
    after = plan_memory(planned_config(less), less.train, backend)
    before = plan_memory(planned_config(plain), plain.train, backend)
    assert after.peak < before.peak


def test_averages_take_memory():
    plain, more = recipe_files.load("tiny-tale"), recipe_files.load("tiny-tale", ["train.ema=0.99"])
    assert of(more).memory.peak - of(plain).memory.peak == of(plain).memory.weights


# ---------------------------------------------------------------------- speed
def test_speed_by_hand():
    """Where arithmetic decides: operations over a share of the peak."""
    recipe = recipe_files.load("tiny-llm")
    found = of(recipe, replace(mac(M2, recipe.model), bandwidth=None), tokens=3_600_000)
    per_token = flops_per_token(planned_config(recipe), recipe.train).training
    slow, fast = found.speed.tokens_per_second
    assert slow == pytest.approx(0.25 * M2.teraflops * 1e12 / per_token)
    assert fast == pytest.approx(0.50 * M2.teraflops * 1e12 / per_token)
    assert found.speed.hours == (pytest.approx(1000 / fast), pytest.approx(1000 / slow))


def test_published_speeds_lie_in_the_range():
    """mlx-examples #127: 153.9M parameters, 2 x 1,024 tokens a step; 1.0 step a second on an M1 Pro, 1.4 on an M2 Pro,
    2.03 on an M2 Max and 2.9 on an M3 Max."""
    sets = ["model.hidden_size=1024", "model.layers=12", "model.heads=16", "model.intermediate_size=4096",
            "model.activation=relu", "model.context=1024", "model.vocab_size=2700", "train.batch_size=2",
            "train.accumulate=1", "model.tie_embeddings=false"]  # fmt: skip
    recipe = recipe_files.load("lillm", [*sets, "model.kv_heads=16"])
    assert 1.5e8 < flops_per_token(planned_config(recipe), recipe.train).training / 6 < 1.9e8
    for key, steps in (("m1-pro-16gb", 1.0), ("m2-pro-16gb", 1.4), ("m2-max-32gb", 2.03), ("m3-max-48gb", 2.9)):
        slow, fast = of(recipe, mac(CHIPS[key], recipe.model)).speed.tokens_per_second
        assert slow < steps * 2048 < fast, key


def test_recomputation_takes_time():
    plain, again = recipe_files.load("tiny-llm"), recipe_files.load("tiny-llm", ["train.gradient_checkpointing=block"])
    ratio = of(plain).speed.tokens_per_second[0] / of(again).speed.tokens_per_second[0]
    assert 1.1 < ratio < 4 / 3


def test_slow_memory_takes_time():
    recipe = recipe_files.load("tale")
    quick, slow = (of(recipe, replace(mac(M2, recipe.model), bandwidth=width)) for width in (1000.0, 0.1))
    assert slow.speed.tokens_per_second[1] < quick.speed.tokens_per_second[1] / 10


def test_a_measured_product():
    assert 1e-4 < measured_teraflops(seconds=0.02) < 1000


# ---------------------------------------------------------------------- the stage
def test_tokens_follow_the_schedule():
    sets = ["train.steps=10", "train.accumulate=1", "train.accumulate_schedule={5: 3}", "train.warmup_steps=0"]
    found = plan("tale", sets, ["m2-8gb"])
    assert found.tokens == (5 * 1 + 5 * 3) * 8 * 192


def test_all_chips():
    assert [one.machine.name for one in plan("tale", [], ["all"]).forecasts] == [chip.name for chip in CHIPS.values()]
