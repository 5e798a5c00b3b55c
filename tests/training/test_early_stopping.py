"""Patience: when it ends, what is saved of it, and which step was the best."""

import math

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.data.rows import Batch
from tinytale_mlx.recipe import TrainRecipe
from tinytale_mlx.training.loop import Hooks, Progress, train
from tinytale_mlx.training.losses import perplexity
from tinytale_mlx.training.step import StepResult

ROWS = Batch(np.zeros((1, 3), np.int32), np.ones((1, 2), np.float32))
RECIPE = TrainRecipe(steps=20, validate_every=2, save_every=5, sample_every=100, log_every=1, early_stopping=3)
LOSSES = [3.0, 2.0, 2.5, 2.0, 1.5, 1.6, 1.5, 1.7, 1.0, 1.0]
"""Of steps 2, 4, ... 20: the best is 1.5 at step 10, and the third without progress comes at step 16."""


def run(progress: Progress, stop_at: int = 100, recipe: TrainRecipe = RECIPE) -> tuple[str, list[int], list[dict]]:
    """The status, at which steps it saved, and what was logged."""
    saved, logged = [], []
    hooks = Hooks(
        log=logged.append,
        evaluate=lambda: {"val_loss": LOSSES[progress.step // 2 - 1]},
        sample=str,
        save=lambda progress: saved.append(progress.step),
        stop_requested=lambda: progress.step >= stop_at,
        utilisation=lambda speed: None if math.isnan(speed) else 0.25,
    )
    status = train(lambda *_: StepResult(2000.0, 2.0, 1.0), lambda _: ROWS, recipe, 0, progress, hooks)  # type: ignore[arg-type]
    return status, saved, logged


def test_it_stops_when_patience_is_over() -> None:
    progress = Progress()
    status, saved, _ = run(progress)
    assert status == "stopped early"
    assert progress.step == 16
    assert (progress.best_val_loss, progress.best_step, progress.validations_without_progress) == (1.5, 10, 3)
    assert saved == [2, 4, 5, 10, 15, 16]  # every fifth, each best one, and the end


def test_as_good_as_before_is_no_progress() -> None:
    progress = Progress()
    for loss in (1.5, 1.5, 1.4, 1.4):
        progress.step += 1
        progress.validated(loss)
    assert (progress.best_step, progress.validations_without_progress) == (3, 1)


def test_without_it_all_steps_are_done() -> None:
    progress = Progress()
    recipe = RECIPE.model_copy(update={"early_stopping": None, "keep_best": 0})
    status, saved, _ = run(progress, recipe=recipe)
    assert (status, progress.step, progress.best_step) == ("finished", 20, 18)
    assert saved == [5, 10, 15, 20]


@pytest.mark.parametrize("stop_at", [3, 11, 12, 15])
def test_resuming_is_as_exact_as_ever(stop_at: int) -> None:
    progress = Progress()
    assert run(progress, stop_at)[0] == "interrupted"
    progress = Progress.from_json(progress.to_json())
    assert run(progress)[0] == "stopped early"
    assert progress.step == 16
    again = Progress.from_json(progress.to_json())
    event = {"event": "early_stop", "step": 16, "best_val_loss": 1.5, "best_step": 10}
    assert run(again) == ("stopped early", [], [event])  # there is nothing left to do


def test_patience_ends_with_the_last_step() -> None:
    status, saved, _ = run(Progress(), recipe=RECIPE.model_copy(update={"steps": 16}))
    assert status == "finished"
    assert saved.count(16) == 1


def test_a_line_of_the_log() -> None:
    """A loss of 1,000 nats has no perplexity that a float can hold, and that is no error."""
    held = mx.ones(1000)
    mx.eval(held)
    line = [event for event in run(Progress())[2] if event["event"] == "step"][1]
    assert set(line) == {
        "event", "step", "loss", "perplexity", "learning_rate", "grad_norm", "loss_scale", "tokens", "seconds",
        "tokens_per_second", "mfu", "active_memory_bytes", "peak_memory_bytes", "cache_memory_bytes",
    }  # fmt: skip
    assert (line["loss"], line["mfu"], line["tokens"]) == (1000.0, 0.25, 4)
    assert math.isfinite(line["perplexity"])
    assert perplexity(2.0) == pytest.approx(math.e**2)
    assert line["peak_memory_bytes"] >= line["active_memory_bytes"] > 0
