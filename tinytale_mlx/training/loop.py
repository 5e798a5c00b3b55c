"""The training loop. It knows steps, and when to do what; what that is comes in as functions.

Batches, learning rate and dropout keys are functions of (seed, step), so a loop that starts at step 500 with the
checkpoint of step 500 goes on exactly as if it had never stopped.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import mlx.core as mx

from ..data.batches import Batch
from ..errors import UserError
from ..randomness import key
from ..recipe import TrainRecipe
from .schedules import accumulate_at, learning_rate, micro_batches_before
from .step import Step, StepResult


@dataclass
class Progress:
    """What a checkpoint remembers beside weights and optimiser."""

    step: int = 0
    """Steps done."""
    tokens: int = 0
    seconds: float = 0.0
    """Spent in steps, over all sessions; validation and samples not counted."""
    timed_tokens: int = 0
    timed_seconds: float = 0.0
    """Tokens and seconds without the first step of each session, which compiles."""
    train_loss: float = math.nan
    val_loss: float = math.nan

    @property
    def tokens_per_second(self) -> float:
        return self.timed_tokens / self.timed_seconds if self.timed_seconds else math.nan

    def add(self, tokens: int, seconds: float, timed: bool) -> None:
        """Count one more step."""
        self.step += 1
        self.tokens += tokens
        self.seconds += seconds
        self.timed_tokens += tokens * timed
        self.timed_seconds += seconds * timed

    def to_json(self) -> dict[str, Any]:
        return {name: None if value != value else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Progress":
        given: dict[str, Any] = {name: math.nan if value is None else value for name, value in content.items()}
        return cls(**given)


@dataclass
class Hooks:
    """What happens around the steps. `log` gets one flat dictionary per event."""

    log: Callable[[dict[str, Any]], None]
    evaluate: Callable[[], dict[str, float]]
    """The validation figures, `val_loss` among them."""
    sample: Callable[[int], str]
    save: Callable[[Progress], None]
    stop_requested: Callable[[], bool] = lambda: False
    after_step: Callable[[int], None] = lambda step: None
    """Called with the number of steps done, before anything is logged, validated or saved."""


def train(
    step: Step, batch_at: Callable[[int], Batch], train: TrainRecipe, seed: int, progress: Progress, hooks: Hooks
) -> Literal["finished", "interrupted"]:
    """Run from `progress.step` to `train.steps`, or until a stop is requested; either way the end is saved.

    Raises UserError when a loss is no longer finite; the last checkpoint then is from before that.
    """
    window, first = _Window(), progress.step
    while progress.step < train.steps:
        number = progress.step
        started = time.perf_counter()
        rate = learning_rate(number, train)
        before = micro_batches_before(number, train)
        batches = (batch_at(before + i) for i in range(accumulate_at(number, train)))
        result = step(batches, rate, key(seed, "dropout", number))
        _check_finite(result, number + 1, train)
        seconds = time.perf_counter() - started
        progress.add(int(result.tokens), seconds, timed=number > first)
        hooks.after_step(progress.step)
        window.add(result, seconds, timed=number > first)

        stopping = hooks.stop_requested()
        done = progress.step == train.steps
        if progress.step % train.log_every == 0 or number == first or done or stopping:
            progress.train_loss = window.loss
            hooks.log(_step_event(progress, rate, result, window))
            window = _Window()
        if (progress.step % train.validate_every == 0 and not stopping) or done:
            _validate(progress, train, hooks)
        if progress.step % train.sample_every == 0 and not stopping and not done:
            hooks.log({"event": "sample", "step": progress.step, "text": hooks.sample(progress.step)})
        if progress.step % train.save_every == 0 or done or stopping:
            hooks.save(progress)
        if stopping and not done:
            return "interrupted"
    return "finished"


def _validate(progress: Progress, train: TrainRecipe, hooks: Hooks) -> None:
    figures = hooks.evaluate()
    progress.val_loss = figures["val_loss"]
    if not math.isfinite(progress.val_loss):
        raise _diverged("validation loss", progress.val_loss, progress.step, train)
    hooks.log({"event": "validation", "step": progress.step, "tokens": progress.tokens, **figures})


def _check_finite(result: StepResult, step: int, train: TrainRecipe) -> None:
    if not math.isfinite(result.nats):
        raise _diverged("loss", result.nats, step, train)
    if not math.isfinite(result.grad_norm):
        raise _diverged("gradient norm", result.grad_norm, step, train)


def _diverged(what: str, value: float, step: int, train: TrainRecipe) -> UserError:
    return UserError(
        f"the {what} became {value} at step {step}, so training stopped; "
        f"start again with a train.learning_rate below {train.learning_rate:g}"
    )


def _step_event(progress: Progress, rate: float, result: StepResult, window: "_Window") -> dict[str, Any]:
    return {
        "event": "step",
        "step": progress.step,
        "loss": window.loss,
        "learning_rate": rate,
        "grad_norm": result.grad_norm,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "tokens_per_second": window.tokens_per_second,
        "peak_memory_bytes": mx.get_peak_memory(),
    }


class _Window:
    """Sums since the last log line."""

    def __init__(self) -> None:
        self._nats = self._tokens = self._timed_tokens = self._timed_seconds = 0.0

    def add(self, result: StepResult, seconds: float, timed: bool) -> None:
        self._nats += result.nats
        self._tokens += result.tokens
        self._timed_tokens += result.tokens * timed
        self._timed_seconds += seconds * timed

    @property
    def loss(self) -> float:
        return self._nats / self._tokens

    @property
    def tokens_per_second(self) -> float:
        """Not a number where the only step was one that compiled."""
        return self._timed_tokens / self._timed_seconds if self._timed_seconds else math.nan
