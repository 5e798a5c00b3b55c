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
from .losses import perplexity
from .precision import LEAST
from .schedules import accumulate_at, learning_rate, micro_batches_before
from .step import Step, StepResult

Status = Literal["finished", "stopped early", "interrupted"]
"""How a training ended: all steps done, no lower validation loss for too long, or a stop was requested."""


@dataclass
class Progress:
    """What a checkpoint remembers beside weights and optimiser."""

    step: int = 0
    """Steps done, those that were left out included."""
    tokens: int = 0
    """Trained on."""
    seconds: float = 0.0
    """Spent in steps, over all sessions; validation and samples not counted."""
    timed_tokens: int = 0
    timed_seconds: float = 0.0
    """Tokens and seconds without the first step of each session, which compiles."""
    train_loss: float = math.nan
    val_loss: float = math.nan
    validated_step: int = 0
    """Of the last validation."""
    best_val_loss: float = math.nan
    best_step: int = 0
    """When the validation loss was lowest."""
    validations_without_progress: int = 0
    """Since then."""
    nonfinite_in_a_row: int = 0
    """Steps left out up to now because their loss or gradients were not finite."""

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

    def validated(self, loss: float) -> None:
        """Note the validation loss of this step."""
        self.val_loss, self.validated_step = loss, self.step
        if loss >= self.best_val_loss:
            self.validations_without_progress += 1
        else:
            self.best_val_loss, self.best_step, self.validations_without_progress = loss, self.step, 0

    def out_of_patience(self, train: TrainRecipe) -> bool:
        """Whether it is time to stop early (Prechelt 1998)."""
        return train.early_stopping is not None and self.validations_without_progress >= train.early_stopping

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
    utilisation: Callable[[float], float | None] = lambda tokens_per_second: None
    """What share of the chip's peak that speed is (MFU); None where the peak is not known."""
    name_batches: Callable[[range], str] = lambda numbers: ""
    """What those micro-batches hold, for a message; "" where nobody can tell."""


def train(
    step: Step, batch_at: Callable[[int], Batch], train: TrainRecipe, seed: int, progress: Progress, hooks: Hooks
) -> Status:
    """Run from `progress.step` to `train.steps`, or until a stop is requested; either way the end is saved.

    A step whose loss or gradients are not finite changes nothing. Where it is no matter of float16's loss scale,
    training stops, or goes on with the next batch up to `train.skip_nonfinite` times in a row.

    Raises UserError when it stops for that; the last checkpoint then is from before.
    """
    loop = _Loop(step, batch_at, train, seed, progress, hooks)
    loop.catch_up()
    while progress.step < train.steps and not progress.out_of_patience(train):
        if loop.once():
            return "interrupted"
    if progress.step >= train.steps:
        return "finished"
    best = {"best_val_loss": progress.best_val_loss, "best_step": progress.best_step}
    hooks.log({"event": "early_stop", "step": progress.step, **best})
    return "stopped early"


class _Loop:
    def __init__(
        self,
        step: Step,
        batch_at: Callable[[int], Batch],
        train: TrainRecipe,
        seed: int,
        progress: Progress,
        hooks: Hooks,
    ):
        self._step, self._batch_at, self._seed = step, batch_at, seed
        self._train, self._progress, self._hooks = train, progress, hooks
        self._first = self._saved_at = progress.step
        self._window = _Window()

    def catch_up(self) -> None:
        """Validate where a stop was requested at a step that was due for it: then patience ends when it would have."""
        progress = self._progress
        due = progress.step > 0 and progress.step % self._train.validate_every == 0
        if due and progress.validated_step != progress.step and self._validate():
            self._save()

    def once(self) -> bool:
        """One step with all that follows from it; True where a stop was requested before the end."""
        progress, train, hooks = self._progress, self._train, self._hooks
        rate, result = self._train_once()
        hooks.after_step(progress.step)
        stopping = hooks.stop_requested()
        done = progress.step == train.steps
        if progress.step % train.log_every == 0 or progress.step == self._first + 1 or done or stopping:
            self._log_step(rate, result)
        best = False
        if (progress.step % train.validate_every == 0 and not stopping) or done:
            best = self._validate()
        done = done or progress.out_of_patience(train)
        if progress.step % train.sample_every == 0 and not stopping and not done:
            hooks.log({"event": "sample", "step": progress.step, "text": hooks.sample(progress.step)})
        if progress.step % train.save_every == 0 or best or done or stopping:
            self._save()
        return stopping and not done

    def _train_once(self) -> tuple[float, StepResult]:
        """The step itself, counted; its learning rate and result."""
        progress, train = self._progress, self._train
        number, started = progress.step, time.perf_counter()
        rate = learning_rate(number, train)
        before = micro_batches_before(number, train)
        batches = range(before, before + accumulate_at(number, train))
        result = self._step((self._batch_at(i) for i in batches), rate, key(self._seed, "dropout", number))
        if result.applied:
            progress.nonfinite_in_a_row = 0
        else:
            self._leave_out(result, batches)
        seconds, timed = time.perf_counter() - started, number > self._first
        progress.add(int(result.tokens) if result.applied else 0, seconds, timed)
        self._window.add(result, seconds, timed)
        return rate, result

    def _leave_out(self, result: StepResult, batches: range) -> None:
        """Log a step that was not applied. Raises UserError where that has happened too often."""
        progress, train = self._progress, self._train
        what, value = ("gradient norm", result.grad_norm) if math.isfinite(result.nats) else ("loss", result.nats)
        overflow = what == "gradient norm" and result.loss_scale > LEAST
        event = {"event": "overflow" if overflow else "nonfinite", "step": progress.step + 1, "what": what}
        event |= {"loss_scale": result.loss_scale, "first_batch": batches[0], "last_batch": batches[-1]}
        self._hooks.log(event)
        if overflow:
            return
        progress.nonfinite_in_a_row += 1
        if progress.nonfinite_in_a_row > train.skip_nonfinite:
            held = self._hooks.name_batches(batches)
            raise self._diverged(what, value, progress.step + 1, f" ({held})" if held else f" ({_numbers(batches)})")

    def _save(self) -> None:
        self._hooks.save(self._progress)
        self._saved_at = self._progress.step

    def _validate(self) -> bool:
        """Whether it was the best so far, and is to be kept."""
        progress = self._progress
        figures = self._hooks.evaluate()
        if not math.isfinite(figures["val_loss"]):
            raise self._diverged("validation loss", figures["val_loss"], progress.step)
        progress.validated(figures["val_loss"])
        self._hooks.log({"event": "validation", "step": progress.step, "tokens": progress.tokens, **figures})
        return progress.best_step == progress.step and self._train.keep_best > 0

    def _diverged(self, what: str, value: float, step: int, where: str = "") -> UserError:
        row = self._progress.nonfinite_in_a_row
        again = f", {row} such steps in a row" if row > 1 else ""
        last = f"the last checkpoint is that of step {self._saved_at}" if self._saved_at else "there is no checkpoint"
        other = " or with train.precision bfloat16" if self._train.precision == "float16" else ""
        return UserError(
            f"the {what} became {value} at step {step}{where}{again}, so training stopped; {last}. "
            f"Start again with a train.learning_rate below {self._train.learning_rate:g}{other}"
            + (", or let train.skip_nonfinite leave such steps out" if where and not self._train.skip_nonfinite else "")
        )

    def _log_step(self, rate: float, result: StepResult) -> None:
        progress, window = self._progress, self._window
        progress.train_loss = window.loss
        self._hooks.log(
            {
                "event": "step",
                "step": progress.step,
                "loss": window.loss,
                "perplexity": perplexity(window.loss),
                "learning_rate": rate,
                "grad_norm": result.grad_norm,
                "loss_scale": result.loss_scale,
                "tokens": progress.tokens,
                "seconds": progress.seconds,
                "tokens_per_second": window.tokens_per_second,
                "mfu": self._hooks.utilisation(window.tokens_per_second),
                "active_memory_bytes": mx.get_active_memory(),
                "peak_memory_bytes": mx.get_peak_memory(),
                "cache_memory_bytes": mx.get_cache_memory(),
            }
        )
        self._window = _Window()


def _numbers(batches: range) -> str:
    return f"batch {batches[0]}" if len(batches) == 1 else f"batches {batches[0]} to {batches[-1]}"


class _Window:
    """Sums since the last log line, over the steps that were applied."""

    def __init__(self) -> None:
        self._nats = self._tokens = self._timed_tokens = self._timed_seconds = 0.0

    def add(self, result: StepResult, seconds: float, timed: bool) -> None:
        if result.applied:
            self._nats += result.nats
            self._tokens += result.tokens
            self._timed_tokens += result.tokens * timed
        self._timed_seconds += seconds * timed

    @property
    def loss(self) -> float:
        """Not a number where no step was applied."""
        return self._nats / self._tokens if self._tokens else math.nan

    @property
    def tokens_per_second(self) -> float:
        """Not a number where the only step was one that compiled."""
        return self._timed_tokens / self._timed_seconds if self._timed_seconds else math.nan
