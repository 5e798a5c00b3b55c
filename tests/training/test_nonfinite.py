"""Losses and gradients that are not finite never reach the weights; what then happens is the recipe's choice."""

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tinytale_mlx.data.rows import Batch
from tinytale_mlx.errors import UserError
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training.loop import Hooks, Progress, train
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.precision import LEAST, MOST, LossScale
from tinytale_mlx.training.step import Step, StepResult

KEY = mx.random.key(0)
ROWS = Batch(np.arange(36, dtype=np.int32).reshape(4, 9), np.ones((4, 8), np.float32))


@pytest.fixture(autouse=True)
def _eager():
    """Nothing is compiled, which on a CPU takes seconds for every new model."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def everything(step: Step) -> dict[str, np.ndarray]:
    """Parameters and optimiser state."""
    trees = tree_flatten({"model": step.model.parameters(), "optimizer": step.optimizer.state})
    return {name: np.array(array) for name, array in trees if "learning_rate" not in name}


# ---------------------------------------------------------------------- the step
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor", "lion", "adam_mini"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_is_poisoned(optimizer: str, bad: float, tiny: Callable[..., ModelConfig]):
    """Not the weights, not the optimiser; the next batch is learned from as if nothing had been."""
    recipe = TrainRecipe(optimizer=optimizer)
    step, other = (Step(Transformer(tiny()), make_optimizer(recipe), 1.0) for _ in range(2))
    poisoned = ROWS._replace(weights=ROWS.weights * np.array([[1], [1], [1], [bad]], np.float32))
    step([ROWS], 1e-2, KEY)
    before = everything(step)
    result = step([ROWS, poisoned], 1e-2, KEY)
    assert not result.applied
    assert not math.isfinite(result.nats)
    after = everything(step)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    step([ROWS], 1e-2, KEY)
    other([ROWS], 1e-2, KEY)
    other([ROWS], 1e-2, KEY)
    expected = everything(other)
    assert all(np.array_equal(array, expected[name]) for name, array in everything(step).items())


# ---------------------------------------------------------------------- the loss scale
def test_scale() -> None:
    """Halved by each overflow, doubled after as many good steps in a row as the window has, never out of bounds."""
    scale = LossScale(8.0, 3)
    seen = []
    for finite in [True, True, False, True, True, True, True, True, True, False, False, False, False, False, False]:
        scale.update(finite)
        seen.append(scale.value)
    assert seen == [8, 8, 4, 4, 4, 8, 8, 8, 16, 8, 4, 2, 1, 1, 1]
    scale = LossScale(MOST, 1)
    scale.update(True)
    assert scale.value == MOST
    fixed = LossScale()
    fixed.update(False)
    assert fixed.value == LEAST


def test_scale_of_a_recipe() -> None:
    assert LossScale.of(TrainRecipe(precision="float16", loss_scale=4.0, loss_scale_window=7)).value == 4.0
    assert LossScale.of(TrainRecipe(precision="float16", loss_scale=1e30)).value == MOST
    assert LossScale.of(TrainRecipe(precision="float16", loss_scale=1e-3)).value == LEAST
    assert LossScale.of(TrainRecipe(precision="bfloat16", loss_scale=4.0)).value == 1.0


def test_scale_is_restored() -> None:
    scale, other = LossScale(8.0, 3), LossScale(64.0, 3)
    for finite in (False, True, True):
        scale.update(finite)
    other.restore(scale.to_json())
    other.update(True)
    assert other.value == 8.0
    other.restore(None)  # an old checkpoint
    assert other.value == 8.0


def test_overflow_halves_and_recovers(tiny: Callable[..., ModelConfig]):
    """float16 from the highest scale: steps are left out until gradients fit; then it learns, and dares more again."""
    model = Transformer(tiny())
    step = Step(model, optim.SGD(learning_rate=0.1), None, precision="float16", loss_scale=LossScale(MOST, 3))
    before = np.array(model.model.embed_tokens.weight)
    results: list[StepResult] = []
    while not results or not results[-1].applied:
        assert np.array_equal(np.array(model.model.embed_tokens.weight), before)
        results.append(step([ROWS], 0.1, KEY))
    assert len(results) > 2
    assert [result.loss_scale for result in results] == [MOST / 2**i for i in range(len(results))]
    assert all(math.isfinite(result.nats) for result in results)
    assert not any(math.isfinite(result.grad_norm) for result in results[:-1])
    assert not np.array_equal(np.array(model.model.embed_tokens.weight), before)
    scale = results[-1].loss_scale
    exact = Step(Transformer(tiny()), optim.SGD(learning_rate=0.1), None)([ROWS], 0.1, KEY)
    assert results[-1].grad_norm == pytest.approx(exact.grad_norm, rel=0.01)
    more = [step([ROWS], 0.1, KEY) for _ in range(3)]
    assert [result.loss_scale for result in more] == [scale, scale, 2 * scale]


def test_a_forward_pass_that_fails_is_no_matter_of_the_scale(tiny: Callable[..., ModelConfig]):
    scale = LossScale(8, 3)
    step = Step(Transformer(tiny()), optim.SGD(learning_rate=0.1), None, precision="float16", loss_scale=scale)
    step([ROWS._replace(weights=ROWS.weights * math.nan)], 0.1, KEY)
    assert scale.value == 8


# ---------------------------------------------------------------------- the loop
def run(
    outcomes: str, progress: Progress | None = None, **changes: Any
) -> tuple[list[tuple[str, int]], Progress, dict[str, Any]]:
    """Train for as many steps as there are letters: . fine, n a NaN, i an infinite gradient, o an overflow."""
    recipe = TrainRecipe(**{"steps": len(outcomes), "log_every": 2, "save_every": 2, "validate_every": 100, **changes})
    events: list[tuple[str, int]] = []
    progress, last = progress or Progress(), {"losses": []}
    number = iter(range(progress.step, len(outcomes)))

    def step(batches: Any, rate: float, key: mx.array) -> StepResult:
        assert len(list(batches)) == recipe.accumulate
        result = {
            ".": StepResult(30.0, 10.0, 1.0),
            "n": StepResult(math.nan, 10.0, math.nan, applied=False),
            "i": StepResult(30.0, 10.0, math.inf, applied=False),
            "o": StepResult(30.0, 10.0, math.inf, applied=False, loss_scale=4.0),
        }
        return result[outcomes[next(number)]]

    def log(event: dict[str, Any]) -> None:
        events.append((event["event"], event["step"]))
        last[event["event"]] = event
        last["losses"] += [event["loss"]] if event["event"] == "step" else []

    hooks = Hooks(log, lambda: {"val_loss": 3.0}, str, lambda progress: events.append(("save", progress.step)))
    hooks.name_batches = lambda numbers: f"rows {numbers[0]} on" if recipe.accumulate == 3 else ""
    try:
        train(step, lambda number: ROWS, recipe, 0, progress, hooks)  # type: ignore[arg-type]
    except UserError as error:
        last["error"] = str(error)
    return events, progress, last


def test_training_stops_and_says_where() -> None:
    events, progress, last = run(".....n..", accumulate=2, learning_rate=0.5)
    assert events[-1] == ("nonfinite", 6)
    assert progress.step == 5
    assert last["error"] == (
        "the loss became nan at step 6 (batches 10 to 11), so training stopped; the last checkpoint is that of step 4. "
        "Start again with a train.learning_rate below 0.5, or let train.skip_nonfinite leave such steps out"
    )
    nonfinite = last["nonfinite"]
    assert (nonfinite["what"], nonfinite["first_batch"], nonfinite["last_batch"]) == ("loss", 10, 11)


def test_the_batch_is_named_where_somebody_knows_it() -> None:
    error = run("i.", accumulate=3)[2]["error"]
    assert "the gradient norm became inf at step 1 (rows 0 on), so training stopped; there is no checkpoint." in error


def test_some_steps_may_be_left_out() -> None:
    """So many in a row, and again after a good one. They count as steps, but not as tokens or losses."""
    events, progress, last = run(".nn.in..", skip_nonfinite=2)
    assert [step for kind, step in events if kind == "nonfinite"] == [2, 3, 5, 6]
    assert "error" not in last
    assert (progress.step, progress.tokens, progress.train_loss) == (8, 40, 3.0)
    assert ("save", 2) in events
    assert [loss for loss in last["losses"] if loss == loss] == [3.0] * 3  # of 1, 3 and 4, 7 and 8


def test_too_many_in_a_row() -> None:
    events, progress, last = run("..nin...", skip_nonfinite=2)
    assert events[-1] == ("nonfinite", 5)
    assert progress.step == 4
    assert "at step 5 (batch 4), 3 such steps in a row, so training stopped" in last["error"]
    assert "skip_nonfinite" not in last["error"]


def test_how_many_in_a_row_survives_a_checkpoint() -> None:
    """Stopped between two of them."""
    progress = run(".n", skip_nonfinite=1)[1]
    again = Progress.from_json(progress.to_json())
    assert "2 such steps in a row" in run(".nn.", again, skip_nonfinite=1)[2]["error"]


def test_overflows_that_only_lower_the_scale_do_not_count() -> None:
    events, progress, last = run("oooo.on.", precision="float16", skip_nonfinite=1)
    assert "error" not in last
    assert [step for kind, step in events if kind == "overflow"] == [1, 2, 3, 4, 6]
    assert progress.tokens == 20
    assert last["overflow"]["loss_scale"] == 4.0


def test_overflow_at_the_least_scale_counts() -> None:
    error = run("oi", precision="float16")[2]["error"]
    assert "at step 2 (batch 1)" in error
    assert "or with train.precision bfloat16" in error


def test_a_line_of_the_log_without_a_single_good_step() -> None:
    """It has no loss, and no error either."""
    last = run("nnnn", skip_nonfinite=9)[2]
    assert math.isnan(last["step"]["loss"])
    assert math.isnan(last["step"]["perplexity"])
    assert last["step"]["mfu"] is None
