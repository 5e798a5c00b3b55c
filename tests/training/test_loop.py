"""When the loop does what; with a step that only keeps the books."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinytale_mlx.data.batches import Batch
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import TrainRecipe
from tinytale_mlx.training.loop import Hooks, Progress, train
from tinytale_mlx.training.schedules import learning_rate
from tinytale_mlx.training.step import StepResult


class Books:
    """Stands in for everything around the loop and writes down what happened, in order."""

    def __init__(self, loss: Callable[[int], float] = lambda step: 3.0, val_loss: float = 2.5):
        self.events: list[tuple[str, int]] = []
        self.rates: list[float] = []
        self.batches: list[int] = []
        self.keys: list[list[int]] = []
        self.logged: list[dict[str, Any]] = []
        self.stop_at = math.inf
        self._loss, self._val_loss, self._step = loss, val_loss, 0

    def step(self, batches, rate: float, key) -> StepResult:
        tokens = sum(float(weights.sum()) for _, weights in batches)
        self.rates.append(rate)
        self.keys.append(key.tolist())
        self._step += 1
        loss = self._loss(self._step)
        return StepResult(loss * tokens, tokens, 1.0, applied=math.isfinite(loss))

    def batch_at(self, number: int) -> Batch:
        self.batches.append(number)
        return np.zeros((2, 5), np.int32), np.ones((2, 4), np.float32)

    def log(self, event: dict[str, Any]) -> None:
        self.logged.append(event)
        self.events.append((event["event"], event["step"]))

    def run(self, recipe: TrainRecipe, progress: Progress | None = None, seed: int = 0) -> str:
        progress = progress or Progress()
        hooks = Hooks(
            log=self.log,
            evaluate=lambda: {"val_loss": self._val_loss},
            sample=lambda step: f"tale {step}",
            save=lambda progress: self.events.append(("save", progress.step)),
            stop_requested=lambda: progress.step >= self.stop_at,
        )
        return train(self.step, self.batch_at, recipe, seed, progress, hooks)  # type: ignore[arg-type]

    def at(self, kind: str) -> list[int]:
        return [step for name, step in self.events if name == kind]


RECIPE = TrainRecipe(steps=10, accumulate=2, log_every=4, validate_every=3, save_every=5, sample_every=5, keep_best=0)


def test_when() -> None:
    books = Books()
    assert books.run(RECIPE) == "finished"
    assert books.at("step") == [1, 4, 8, 10]  # the first too: it shows that something happens
    assert books.at("validation") == [3, 6, 9, 10]
    assert books.at("sample") == [5]  # the last ones are for the finished model
    assert books.at("save") == [5, 10]
    assert books.events[-1] == ("save", 10)


def test_what_a_step_gets() -> None:
    books = Books()
    books.run(RECIPE)
    assert books.batches == list(range(20))
    assert books.rates == [learning_rate(step, RECIPE) for step in range(10)]
    assert len({tuple(key) for key in books.keys}) == 10


def test_going_on_is_as_if_it_had_never_stopped() -> None:
    whole, first, second = Books(), Books(), Books()
    whole.run(RECIPE)
    first.stop_at = 6
    progress = Progress()
    assert first.run(RECIPE, progress) == "interrupted"
    assert first.events[-1] == ("save", 6)
    assert first.at("sample") == [5]
    assert second.run(RECIPE, Progress.from_json(progress.to_json())) == "finished"
    for what in ("batches", "rates", "keys"):
        assert getattr(first, what) + getattr(second, what) == getattr(whole, what)


def test_stopped_in_the_last_step() -> None:
    books = Books()
    books.stop_at = 10
    assert books.run(RECIPE) == "finished"
    assert books.at("validation")[-1] == 10


def test_nothing_left_to_do() -> None:
    books = Books()
    assert books.run(RECIPE, Progress(step=10)) == "finished"
    assert books.events == []


def test_another_seed_has_other_keys() -> None:
    first, second = Books(), Books()
    first.run(RECIPE)
    second.run(RECIPE, seed=1)
    assert first.keys != second.keys


def test_figures() -> None:
    """The loss is that of all tokens since the last line; the speed leaves out the step that compiles."""
    books = Books(loss=float)
    progress = Progress()
    books.run(RECIPE, progress)
    steps = [event for event in books.logged if event["event"] == "step"]
    assert [event["loss"] for event in steps] == [1, (2 + 3 + 4) / 3, (5 + 6 + 7 + 8) / 4, (9 + 10) / 2]
    assert [event["tokens"] for event in steps] == [16, 64, 128, 160]
    assert math.isnan(steps[0]["tokens_per_second"])
    assert progress.tokens == 160
    assert progress.timed_tokens == 144
    assert 0 < progress.timed_seconds < progress.seconds
    assert progress.train_loss == 9.5
    assert progress.val_loss == 2.5


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_no_number(loss: float) -> None:
    books = Books(loss=lambda step: loss if step == 7 else 3.0)
    with pytest.raises(
        UserError,
        match=rf"the loss became {loss} at step 7 \(batches 12 to 13\), so training stopped; .* that of step 5",
    ):
        books.run(RECIPE)
    assert books.events[-2:] == [("validation", 6), ("nonfinite", 7)]  # nothing of step 7 was kept
    assert books.at("save") == [5]


def test_validation_loss_that_is_no_number() -> None:
    """Before the checkpoint, which would keep it."""
    books = Books(val_loss=math.nan)
    with pytest.raises(UserError, match="the validation loss became nan at step 10"):
        books.run(RECIPE.model_copy(update={"validate_every": 10}))
    assert books.at("save") == [5]


def test_progress_round_trip() -> None:
    progress = Progress(step=3, tokens=5, seconds=0.5, train_loss=1.5)
    content = progress.to_json()
    assert content["val_loss"] is None
    assert str(Progress.from_json(content)) == str(progress)
    assert math.isnan(progress.tokens_per_second)
