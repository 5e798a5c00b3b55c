"""What every training has in common, from scratch or of a trained model: checkpoints, log, samples, the best weights.

A sitting is the time between the start of a process and its end; a run may take several.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import mlx.optimizers as optim

from .. import device, run
from ..errors import UserError
from ..generation.completions import complete
from ..randomness import key
from ..recipe import AlignRecipe, FinetuneRecipe, GenerateRecipe, TrainRecipe
from ..recipe_files import AnyRecipe
from ..run import Run
from ..tokenizers import Tokenizer
from ..training import checkpoint
from ..training.averaging import WeightAverage, averages, share_of
from ..training.checkpoint_files import step_of
from ..training.distributed import world
from ..training.loop import Hooks, Progress, Status
from ..training.precision import LossScale
from .loading import Loaded
from .starting import resumable
from .tokenizing import Notify
from .trackers import Tracker, Tracking


class Sitting(ABC):
    """The parts of a training, and what the loop asks of them from time to time. `train` says how."""

    tokenizer: Tokenizer
    figures: dict[str, float]

    def __init__(self, this: Run, notify: Notify):
        self.run, self._notify = this, notify
        self.progress = Progress()
        self.figures = {}

    @property
    @abstractmethod
    def train(self) -> TrainRecipe:
        """How it is trained: that section of the recipe."""

    def prepare(self, seed: int, model: Any, saved: Any, optimizer: optim.Optimizer) -> None:
        """Go on where the newest checkpoint is. `saved` is what checkpoints hold of the model, or the model itself."""
        self.seed, self.model, self.saved, self.optimizer = seed, model, saved, optimizer
        self.average = WeightAverage(model.trainable_parameters()) if averages(self.train) else None
        self.loss_scale = LossScale.of(self.train)
        self._load_newest()

    def _load_newest(self) -> None:
        state = checkpoint.load_newest(self.run.checkpoints, self.saved, self.optimizer, self.average, self.warn)
        if state is not None:
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.progress = Progress.from_json(state["progress"])
        if self.loss_scale.window is not None:  # a branch may compute in another precision
            self.loss_scale.restore(state.get("loss_scale"))

    # ------------------------------------------------------------------ what is written
    def warn(self, sentence: str) -> None:
        self.log({"event": "warning", "text": sentence})

    def log(self, event: dict[str, Any]) -> None:
        self.run.log(event)
        if event["event"] == "sample":
            self.run.add_sample(event["step"], event["text"])
        self._notify(event)

    def save(self, progress: Progress) -> None:
        checkpoint.save(self.run.checkpoints, progress.step, self.saved, self.optimizer, self.state(), self.average)
        self._prune()
        self._notify({"event": "saved", "step": progress.step})

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to remember beside arrays."""
        progress = self.progress
        val_loss = progress.val_loss if progress.validated_step == progress.step else None
        return {"progress": progress.to_json(), "loss_scale": self.loss_scale.to_json(), "val_loss": val_loss}

    def _prune(self) -> None:
        checkpoint.prune(self.run.checkpoints, self.train.keep_checkpoints, self.train.keep_best)

    # ------------------------------------------------------------------ after steps
    def after_step(self, step: int) -> None:
        if self.average:
            self.average.update(self.model.trainable_parameters(), share_of(step, self.train))

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the average of its weights, where the recipe asks for one."""
        return self.average.in_place(self.model) if self.average else nullcontext()

    @abstractmethod
    def held_out(self) -> dict[str, float]:
        """The validation figures of the model as it is, `val_loss` among them."""

    def validate(self) -> dict[str, float]:
        with self.averaged():
            self.figures.update(self.held_out())
        return self.figures

    def name_batches(self, numbers: range) -> str:
        """What these micro-batches hold, for a message; "" where nobody can tell."""
        return ""

    # ------------------------------------------------------------------ samples
    generate: GenerateRecipe
    stop: set[int]
    """The ids that end a text."""

    @abstractmethod
    def prompt(self, text: str) -> tuple[list[int], str]:
        """The ids of one of the recipe's prompts, and what to show before the completion."""

    def sample(self, step: int) -> str:
        return next(self.samples(step), "")

    def samples(self, step: int) -> Iterator[str]:
        """A completion of each of the recipe's prompts, other ones after every number of steps."""
        for number, text in enumerate(self.generate.prompts):
            ids, shown = self.prompt(text)
            draw = key(self.seed, "sample", step, number)
            with self.averaged():
                written = complete(self.model, self.tokenizer, ids, self.generate, draw, self.stop).text
            yield shown + written

    # ------------------------------------------------------------------ the end
    def take_best(self) -> None:
        """After training, where the recipe asks for the best weights: these from now on, and their figures."""
        best = self._load_best()
        if world().any(best is not None):
            self.average = None  # if there is one, that is what has been loaded
            world().copy_first(weights := self.model.parameters())
            self.model.update(weights)
            self.log({"event": "best", "step": best, **self.validate()})

    def _load_best(self) -> int | None:
        path = checkpoint.load_best_weights(self.run.checkpoints, self.saved)
        return None if path is None else step_of(path)

    def hooks(
        self,
        stop_requested: Callable[[], bool],
        utilisation: Callable[[float], float | None] = lambda tokens_per_second: None,
    ) -> Hooks:
        return Hooks(
            self.log, self.validate, self.sample, self.save, stop_requested, self.after_step, utilisation,
            self.name_batches,
        )  # fmt: skip

    def closing_samples(self) -> list[str]:
        """The figures, if there are none yet, and a sample of each prompt, logged."""
        if not self.figures:  # resumed, with nothing left to do
            self.validate()
        texts = []
        for text in self.samples(self.progress.step):
            texts.append(text)
            self.log({"event": "sample", "step": self.progress.step, "text": text})
        return texts


class Guard:
    """`begun`: the checkpoints that a run began with, once it has begun."""

    begun: list | None = None


@contextmanager
def guarded(this: Run, resume: bool, tracking: Tracking, stop_requested: Callable[[], bool]) -> Iterator[Guard]:
    """Inside, a run that is locked is trained; afterwards others may have it. If that fails before its first
    checkpoint, nothing is left of a new run.

    Raises:
        UserError: instead of MLX's error where memory is used up.
    """
    guard = Guard()
    try:
        yield guard
    except BaseException as error:
        tracking.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        if not resume and guard.begun in (None, checkpoint.all_checkpoints(this.checkpoints)):
            this.discard()
        if isinstance(error, RuntimeError) and stop_requested():
            raise KeyboardInterrupt from error  # Ctrl-C also ended the compiler that MLX had started
        if isinstance(error, RuntimeError) and "allocate" in str(error):
            raise UserError(
                f"this machine has not enough memory for it ({error}); try a smaller train.batch_size, context or model"
            ) from error
        raise
    finally:
        this.unlock()


class Prepared(Protocol):
    """A sitting that is about to begin, with the recipe that it goes by."""

    @property
    def recipe(self) -> AnyRecipe: ...


class Ended(Protocol):
    """What a sitting comes to."""

    status: Status


R = TypeVar("R", FinetuneRecipe, AlignRecipe)
S = TypeVar("S", bound=Prepared)
E = TypeVar("E", bound=Ended)


def sit_with_base(
    recipe: R,
    load_base: Callable[[str, Path], Loaded],
    make: Callable[[Run, R, Loaded, Path, Notify], S],
    train: Callable[[S, Callable[[], bool]], E],
    name: str | None,
    resume: bool,
    root: Path,
    notify: Notify,
    stop_requested: Callable[[], bool],
    trackers: Sequence[Tracker],
) -> E:
    """The base is loaded, the run opened, and trained. Raises UserError as these do."""
    device.configure()
    notify({"event": "phase", "text": f"loading {recipe.base}"})
    loaded = load_base(recipe.base, root)
    this = run.find(name, root) if resume else run.new(name, recipe, root)
    this.lock()
    tracking = Tracking(trackers, notify)
    with guarded(this, resume, tracking, stop_requested) as guard:
        if resume:
            recipe = resumable(this, recipe)
        this.start(recipe)
        guard.begun = []
        session = make(this, recipe, loaded, root, tracking.notify)
        tracking.start(this, session.recipe, resume)
        result = train(session, stop_requested)
        tracking.end(result.status)
        return result
