"""The learning rate at the ends of its pieces, and between them; and which micro-batches a step takes."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx import recipe_files
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import TrainRecipe
from tinytale_mlx.training.schedules import accumulate_at, learning_rate, micro_batches_before

TOP, FLOOR = 1e-2, 1e-3


def rates(count: int, **changes: Any) -> list[float]:
    train = TrainRecipe(**{"learning_rate": TOP, "min_learning_rate": FLOOR, "steps": 100, **changes})
    return [learning_rate(step, train) for step in range(count)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_warm_up_is_a_straight_line_from_above_zero_to_the_top(schedule: str):
    first = rates(10, schedule=schedule, warmup_steps=10)
    assert first == pytest.approx([TOP * k / 10 for k in range(1, 11)])
    assert first[-1] == TOP


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 1, 10, 99])
def test_the_last_step_is_exactly_on_the_floor(schedule: str, warmup: int):
    values = rates(150, schedule=schedule, warmup_steps=warmup)
    assert values[99] == FLOOR
    assert values[100:] == [FLOOR] * 50
    falling = values[max(warmup - 1, 0) : 100]
    assert all(a > b for a, b in itertools.pairwise(falling))
    assert all(FLOOR <= value <= TOP for value in values[warmup:])


@pytest.mark.parametrize(("schedule", "share"), [("cosine", 0.5), ("linear", 0.5)])
def test_half_way_down(schedule: str, share: float):
    middle = rates(60, schedule=schedule, warmup_steps=20)[59]  # 40 of 80 steps after the warm-up
    assert middle == pytest.approx(FLOOR + share * (TOP - FLOOR))


def test_a_quarter_of_the_way():
    cosine, linear = (rates(40, schedule=s, warmup_steps=20)[39] for s in ("cosine", "linear"))
    assert cosine == pytest.approx(FLOOR + (TOP - FLOOR) * (1 + math.cos(math.pi / 4)) / 2)
    assert linear == pytest.approx(FLOOR + (TOP - FLOOR) * 0.75)


def test_constant_stays_at_the_top():
    assert rates(200, schedule="constant") == [TOP] * 200
    assert rates(200, schedule="constant", warmup_steps=150)[149:] == [TOP] * 51


def test_decay_steps_beyond_the_run_stop_it_on_the_way_down():
    assert rates(100, decay_steps=400) == rates(100, steps=400)
    assert rates(100, decay_steps=400)[99] > 0.8 * TOP


def test_decay_steps_before_the_end_leave_the_rest_on_the_floor():
    values = rates(100, decay_steps=40)
    assert values[38] > FLOOR
    assert values[39:] == [FLOOR] * 61


def test_without_a_floor_the_last_step_does_nothing():
    assert rates(100, min_learning_rate=0.0)[99] == 0


def test_tiny_llm_as_in_its_log():
    """The column of the reference's log: a cosine over 100,000 steps, of which 50,000 were run."""
    train = TrainRecipe(steps=50_000, decay_steps=100_000, learning_rate=6e-4, min_learning_rate=6e-5)
    logged = {0: 6.00e-4, 5_000: 5.97e-4, 10_000: 5.87e-4, 20_000: 5.48e-4, 40_000: 4.13e-4, 49_000: 3.38e-4}
    for step, rate in logged.items():
        assert learning_rate(step, train) == pytest.approx(rate, abs=0.006e-4)


# ---------------------------------------------------------------------- warm-up, stable, decay
def test_wsd_is_constant_and_then_falls_in_a_straight_line():
    values = rates(120, schedule="wsd", warmup_steps=10, cooldown_steps=20)
    assert values[9:80] == [TOP] * 71
    assert values[80:100] == pytest.approx([TOP - (TOP - FLOOR) * k / 20 for k in range(1, 21)])
    assert values[99:] == [FLOOR] * 21


@pytest.mark.parametrize(("steps", "cooldown"), [(100, 20), (9, 1), (3, 1), (1, 1)])
def test_wsd_cools_down_for_a_fifth_of_the_steps(steps: int, cooldown: int):
    values = rates(steps, schedule="wsd", steps=steps)
    assert values == rates(steps, schedule="wsd", steps=steps, cooldown_steps=cooldown)
    assert (values.count(TOP), values[-1]) == (steps - cooldown, FLOOR)


def test_wsd_needs_no_end_before_it_cools_down():
    """The stable part of a longer run is the same, so it can go on from a checkpoint of the shorter one."""
    short, long = (rates(80, schedule="wsd", steps=n, warmup_steps=10, cooldown_steps=20) for n in (100, 1000))
    assert short == long


def test_wsd_ends_with_decay_steps():
    assert rates(60, schedule="wsd", decay_steps=60, cooldown_steps=5) == rates(
        60, schedule="wsd", steps=60, cooldown_steps=5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosine", "cooldown_steps": 5}, "cooldown_steps goes with train.schedule wsd"),
        ({"schedule": "wsd", "warmup_steps": 60, "cooldown_steps": 41}, "60 and train.cooldown_steps 41 do not fit"),
        ({"schedule": "wsd", "warmup_steps": 81}, "81 and train.cooldown_steps 20 do not fit into the 100 steps"),
        ({"schedule": "wsd", "warmup_steps": 100}, "leaves no step for the wsd schedule"),
    ],
)
def test_a_cooldown_that_can_not_be(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        rates(1, **changes)


# ---------------------------------------------------------------------- micro-batches
SCHEDULES: list[dict[int, int]] = [{}, {0: 2}, {5: 4}, {0: 1, 5: 4, 6: 2, 20: 16}, {20: 16, 0: 3, 5: 1}, {1000: 9}]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_each_step_takes_the_next_micro_batches(accumulate: int, schedule: dict[int, int]):
    """Counted one by one: none is left out, none is taken twice, whichever step one starts from."""
    train = TrainRecipe(accumulate=accumulate, accumulate_schedule=schedule)
    count = accumulate
    taken = 0
    for step in range(30):
        count = schedule.get(step, count)
        assert accumulate_at(step, train) == count
        assert micro_batches_before(step, train) == taken
        taken += count


def test_the_position_takes_no_longer_for_late_steps():
    train = TrainRecipe(accumulate_schedule={10: 2, 10**9: 3})
    assert micro_batches_before(10**18, train) == 10 + 2 * (10**9 - 10) + 3 * (10**18 - 10**9)


def test_a_schedule_in_a_recipe_file(tmp_path: Path):
    """Steps are numbers in YAML, text in JSON and in an override; what is written comes back."""
    text = "name: a\nmodel: {hidden_size: 32, layers: 2, heads: 4, context: 16, intermediate_size: 48}\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(text + "train: {accumulate: 2, accumulate_schedule: {1000: 4, 500: 3}}\n")
    recipe = recipe_files.load(str(path), ["train.accumulate_schedule.2000=8"])
    assert recipe.train.accumulate_schedule == {1000: 4, 500: 3, 2000: 8}
    other = tmp_path / "other.yaml"
    other.write_text(recipe_files.dump(recipe))
    assert recipe_files.load(str(other)) == recipe
    assert recipe_files.differences(recipe_files.load(str(path)), recipe) == [
        "train.accumulate_schedule.2000: None -> 8"
    ]


@pytest.mark.parametrize("schedule", ["{-1: 2}", "{5: 0}", "{a: 2}", "{1.5: 2}", "[1, 2]", "{5: 1.5}"])
def test_a_schedule_that_can_not_be(schedule: str):
    with pytest.raises(UserError, match=r"train\.accumulate_schedule"):
        recipe_files.load("tale", [f"train.accumulate_schedule={schedule}"])
