"""The learning rate at the ends of its pieces, and between them."""

import itertools
import math
from typing import Any

import pytest

from tinytale_mlx.recipe import TrainRecipe
from tinytale_mlx.training.schedules import learning_rate

TOP, FLOOR = 1e-2, 1e-3


def rates(count: int, **changes: Any) -> list[float]:
    train = TrainRecipe(**{"learning_rate": TOP, "min_learning_rate": FLOOR, "steps": 100, **changes})
    return [learning_rate(step, train) for step in range(count)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
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
