"""Training from scratch: tokenizer, shards, steps, checkpoints, samples, model directory."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from .. import device, disk, run
from ..data.prefetch import prefetch
from ..data.rows import Batch
from ..errors import UserError
from ..generation.engine import complete
from ..generation.prompts import stop_ids, text_prompt
from ..interop.huggingface import save_model
from ..models.parameters import count_parameters
from ..models.transformer import Transformer
from ..randomness import key
from ..recipe import Recipe
from ..recipe_files import differences
from ..run import Run
from ..tokenizers import Tokenizer, load_tokenizer
from ..training import checkpoint
from ..training.averaging import WeightAverage, averages, share_of
from ..training.loop import Hooks, Progress
from ..training.loop import train as run_loop
from ..training.optimizers import make_optimizer
from ..training.precision import LossScale
from ..training.schedules import accumulate_at, micro_batches_before
from ..training.step import Step
from .corpus import run_corpus
from .loading import build_model, can_chat
from .scoring import ValidationSet
from .tokenizing import Notify, tokenizer_event, tokenizer_for


@dataclass
class TrainResult:
    run: Run
    status: Literal["finished", "interrupted"]
    progress: Progress
    figures: dict[str, float]
    """Of the last validation; empty where there has been none."""
    samples: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What `tinytale train --json` prints."""
        progress = self.progress
        return {
            "run": str(self.run.path),
            "model": str(self.run.model),
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
) -> TrainResult:
    """Train a tokenizer and a model from scratch, or go on with a run where its last checkpoint is.

    A tokenizer that was trained before on the same text is used again, unless `retrain` says otherwise.

    The same recipe gives the same weights, however often the run was interrupted. Raises UserError for whatever the
    user can mend; a new run that failed before its first checkpoint leaves nothing behind but the tokenizer, for
    the next one.
    """
    if resume and retrain:
        raise UserError("a run that is resumed keeps its tokenizer; start a new run for another one")
    device.configure()
    this = run.find(name, root) if resume else run.new(name, recipe, root)
    this.lock()
    try:
        if resume:
            _check_same_recipe(this, recipe)
        this.start(recipe)
        return _train(_Session(this, recipe, notify, retrain), stop_requested)
    except BaseException as error:
        if not resume and not checkpoint.all_checkpoints(this.checkpoints):
            this.discard()
        if isinstance(error, RuntimeError) and stop_requested():
            raise KeyboardInterrupt from error  # Ctrl-C also ended the compiler that MLX had started
        if isinstance(error, RuntimeError) and "allocate" in str(error):
            raise UserError(
                f"this machine has not enough memory for it ({error}); try a smaller train.batch_size, "
                "model.context or model"
            ) from error
        raise


def _check_same_recipe(this: Run, recipe: Recipe, most: int = 4) -> None:
    changed = differences(this.recipe(), recipe)
    if changed:
        more = f" and {len(changed) - most} more" if len(changed) > most else ""
        raise UserError(
            f"the run {this.name} was started with another recipe ({'; '.join(changed[:most])}{more}); "
            "resume it without changes, or start a new run"
        )


def _train(session: "_Session", stop_requested: Callable[[], bool]) -> TrainResult:
    recipe, progress = session.recipe, session.progress
    step = Step(
        session.model,
        session.optimizer,
        recipe.train.max_grad_norm,
        precision=recipe.train.precision,
        loss_scale=session.loss_scale,
    )
    hooks = Hooks(session.log, session.validate, session.sample, session.save, stop_requested, session.after_step)
    session.start()
    with session.batch_at() as batch_at:
        status = run_loop(step, batch_at, recipe.train, recipe.seed, progress, hooks)
    session.save_model()
    result = TrainResult(session.run, status, progress, session.figures)
    if status == "finished":
        if not session.figures:  # resumed, with nothing left to do
            session.validate()
        for text in session.samples(progress.step):
            result.samples.append(text)
            session.log({"event": "sample", "step": progress.step, "text": text})
    session.log({"event": "end", **result.to_json()})
    return result


class _Session:
    """The parts of a run, put together; and what the loop asks for from time to time."""

    def __init__(self, this: Run, recipe: Recipe, notify: Notify, retrain: bool):
        self.run, self.recipe, self._notify = this, recipe, notify
        self.tokenizer = self._find_tokenizer(retrain)
        notify({"event": "phase", "text": "preparing the data"})
        self._corpus = run_corpus(this, recipe, self.tokenizer, self._report_documents)
        self.batches = self._corpus.batches
        self._held_out = ValidationSet(self._corpus)
        self.model = build_model(recipe, self.tokenizer)
        _check_memory(self.model)
        self.optimizer = make_optimizer(recipe.train)
        self.average = WeightAverage(self.model.trainable_parameters()) if averages(recipe.train) else None
        self.loss_scale = LossScale.of(recipe.train)
        self.progress = Progress()
        if saved := checkpoint.all_checkpoints(this.checkpoints):
            state = checkpoint.load(saved[-1], self.model, self.optimizer, self.average)
            self.progress = Progress.from_json(state["progress"])
        self.figures: dict[str, float] = {}

    @contextmanager
    def batch_at(self) -> Iterator[Callable[[int], Batch]]:
        """The loop's batches; those that are encoded on the way are made by a thread, ahead of the step."""
        if self.recipe.data.store:
            yield self.batches.at
            return
        train = self.recipe.train
        first = micro_batches_before(self.progress.step, train)
        with closing(prefetch(self.batches.at, range(first, sys.maxsize))) as ahead:
            yield lambda _: next(ahead)

    def _find_tokenizer(self, retrain: bool) -> Tokenizer:
        """The run's own tokenizer; a new run gets a copy of the recipe's."""
        own = self.run.tokenizer
        if (own / "tokenizer_config.json").is_file():
            return load_tokenizer(own)
        tokenizer = tokenizer_for(self.recipe, self.run.path.parent, self._notify, retrain)
        with disk.writing("the tokenizer", own):
            tokenizer.save(own, model_max_length=self.recipe.model.context)
        self.log(tokenizer_event(tokenizer, self.recipe))
        return tokenizer

    def _report_documents(self, documents: int, tokens: int) -> None:
        self._notify({"event": "progress", "text": f"{documents:,} documents, {tokens:,} tokens"})

    def start(self) -> None:
        """Log what is about to be trained. The model of an earlier session goes: the checkpoint it came from stays."""
        train = self.recipe.train
        if self.progress.step < train.steps:
            shutil.rmtree(self.run.model, ignore_errors=True)
        checkpoint.prune(self.run.checkpoints, train.keep_checkpoints)
        self.log(
            {"event": "data", "rows_by_source": self._corpus.rows_by_source(), "left_out": self._corpus.left_out()}
        )
        self.log(
            {
                "event": "start",
                "run": str(self.run.path),
                "recipe": self.recipe.name,
                "parameters": count_parameters(self.model),
                "step": self.progress.step,
                "steps": train.steps,
                "vocab_size": self.tokenizer.vocab_size,
                "train_tokens": self._corpus.train_tokens,
                "validation_tokens": self._corpus.validation_tokens,
                "tokens_per_step": train.batch_size
                * accumulate_at(self.progress.step, train)
                * self.recipe.model.context,
                **device.describe(),
            }
        )

    def log(self, event: dict[str, Any]) -> None:
        self.run.log(event)
        if event["event"] == "sample":
            self.run.add_sample(event["step"], event["text"])
        self._notify(event)

    def save(self, progress: Progress) -> None:
        state = {"progress": progress.to_json()}
        checkpoint.save(self.run.checkpoints, progress.step, self.model, self.optimizer, state, self.average)
        checkpoint.prune(self.run.checkpoints, self.recipe.train.keep_checkpoints)
        self._notify({"event": "saved", "step": progress.step})

    def after_step(self, step: int) -> None:
        if self.average:
            self.average.update(self.model.trainable_parameters(), share_of(step, self.recipe.train))

    def _averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the average of its weights, where the recipe asks for one."""
        return self.average.in_place(self.model) if self.average else nullcontext()

    def validate(self) -> dict[str, float]:
        with self._averaged():
            self.figures.update(self._held_out.figures(self.model))
        return self.figures

    def sample(self, step: int) -> str:
        return next(self.samples(step), "")

    def samples(self, step: int) -> Iterator[str]:
        """A completion of each of the recipe's prompts, other ones after every number of steps."""
        stop = stop_ids(self.tokenizer)
        for number, prompt in enumerate(self.recipe.generate.prompts):
            ids = text_prompt(self.tokenizer, prompt)
            draw = key(self.recipe.seed, "sample", step, number)
            with self._averaged():
                text = complete(self.model, self.tokenizer, ids, self.recipe.generate, draw, stop).text
            yield prompt + text

    def save_model(self) -> None:
        chat = can_chat(self.recipe, self.tokenizer)
        with self._averaged():
            save_model(self.run.model, self.model, self.tokenizer, self.recipe.generate, chat_template=chat)


def _check_memory(model: Transformer) -> None:
    """Refuse, before a byte of it is made, a model whose weights, gradients and momenta are beyond this machine."""
    needed, there = 12 * count_parameters(model), device.physical_memory()
    if needed > there:
        raise UserError(
            f"to train {count_parameters(model):,} parameters takes more than {needed / 1e9:,.1f} GB, and this machine "
            f"has {there / 1e9:,.1f} GB; choose a smaller model"
        )
