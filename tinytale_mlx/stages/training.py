"""Training from scratch: tokenizer, shards, steps, checkpoints, samples, model directory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import device, run
from ..errors import UserError
from ..recipe import Recipe
from ..run import Run
from ..training import checkpoint
from ..training.distributed import world
from ..training.loop import Progress, Status
from ..training.loop import train as run_loop
from ..training.losses import token_loss
from ..training.step import Step
from .loading import load
from .session import Session
from .sitting import guarded
from .starting import Given, begin, check_options
from .together import announce, check_shareable, join, leading, leads, losing_nothing, own_cores
from .tokenizing import Notify
from .trackers import Tracker, Tracking
from .utilisation import utilisation


@dataclass
class TrainResult:
    run: Run
    status: Status
    progress: Progress
    figures: dict[str, float]
    """Of the last validation; empty where there has been none."""
    samples: list[str] = field(default_factory=list)

    @property
    def model(self) -> Path:
        """What came of it: a model directory."""
        return self.run.model

    def to_json(self) -> dict[str, Any]:
        """What `tinytale train --json` prints."""
        progress = self.progress
        return {
            "run": str(self.run.path),
            "model": str(self.model),
            "status": self.status,
            "steps": progress.step,
            "tokens": progress.tokens,
            "train_loss": progress.train_loss,
            "val_loss": self.figures.get("val_loss"),
            "val_perplexity": self.figures.get("val_perplexity"),
            "val_bits_per_byte": self.figures.get("val_bits_per_byte"),
            "tokens_per_second": progress.tokens_per_second,
            "seconds": progress.seconds,
            "peak_memory_bytes": mx.get_peak_memory(),
        }


def train(
    recipe: Recipe,
    name: str | None = None,
    resume: bool = False,
    root: Path = run.ROOT,
    notify: Notify = lambda event: None,
    stop_requested: Callable[[], bool] = lambda: False,
    retrain: bool = False,
    branch: str | None = None,
    from_step: int | None = None,
    init_from: str | None = None,
    force: bool = False,
    trackers: Sequence[Tracker] = (),
) -> TrainResult:
    """Train a tokenizer and a model from scratch, or go on with a run where its last checkpoint is.

    A tokenizer that was trained before on the same text is used again, unless `retrain` says otherwise. With a
    `branch`, a new run of that name goes on from the newest checkpoint of the run `name`, or from that of `from_step`,
    with the new recipe. With `init_from`, a new run begins with the weights and the tokenizer of that run or model
    directory. What cannot fit into memory is refused, unless `force` is given. The trackers get every event, see there.

    The same recipe gives the same weights, however often the run was interrupted. Raises UserError for whatever the
    user can mend; a new run that failed before its first checkpoint leaves nothing behind but the tokenizer, for
    the next one.
    """
    if not leads():
        return follow(root, stop_requested)
    device.configure()
    with leading():
        check_options(resume, retrain, branch, from_step, init_from)
        check_shareable(recipe)
        parent = run.find(name, root) if branch is not None else None
        source = load(init_from, root) if init_from is not None else None
        resume = resume and parent is None
        this = run.find(name, root) if resume else run.new(branch or name, recipe, root)
        this.lock()
    tracking = Tracking(trackers, notify)
    with guarded(this, resume, tracking, stop_requested) as guard:
        with leading():
            recipe = begin(this, recipe, resume, Given(parent, from_step, source), notify)
            del source
            guard.begun = checkpoint.all_checkpoints(this.checkpoints)
            session = Session(this, recipe, tracking.notify, retrain, force)
        announce(session)
        tracking.start(this, session.recipe, resume)
        result = _train(session, stop_requested)
        tracking.end(result.status)
        return result


def follow(root: Path = run.ROOT, stop_requested: Callable[[], bool] = lambda: False) -> TrainResult:
    """Take part in the training of rank 0, as a process of `mlx.launch` that is not that; see `together.py`."""
    device.configure()
    try:
        return _train(join(root), stop_requested)
    except UserError as error:
        raise UserError(f"process {world().rank} of {world().size}: {error}") from error


def _train(session: Session, stop_requested: Callable[[], bool]) -> TrainResult:
    recipe, progress = session.recipe, session.progress
    session.model.recompute(recipe.train.gradient_checkpointing, recipe.train.gradient_checkpointing_every)
    step = Step(
        session.model,
        session.optimizer,
        recipe.train.max_grad_norm,
        partial(token_loss, chunk_tokens=recipe.train.loss_chunk_tokens),
        precision=recipe.train.precision,
        loss_scale=session.loss_scale,
        all_sum=world().all_sum if world().size > 1 else None,
    )
    step.lanes = step.lanes[: world().cores]

    def stopping() -> bool:
        return world().any(stop_requested())

    hooks = session.hooks(stopping, utilisation(recipe, session.tokenizer.vocab_size, world().size))
    session.start()
    with session.batch_at() as batch_at, own_cores(), losing_nothing(session):
        status = run_loop(step, batch_at, recipe.train, world().seed(recipe.seed), progress, hooks)
    if recipe.train.final_model == "best":
        session.take_best()
    session.save_model()
    result = TrainResult(session.run, status, progress, session.figures)
    if status != "interrupted":
        result.samples = session.closing_samples()
    predicted = {"predicted_peak_memory_bytes": session.forecast.memory.peak}
    session.log({"event": "end", **result.to_json(), **predicted})
    world().part()
    return result
