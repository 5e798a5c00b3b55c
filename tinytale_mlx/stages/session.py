"""One sitting of a run: its parts put together, and what the loop asks of them from time to time."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from .. import device, disk
from ..data.prefetch import prefetch
from ..data.rows import Batch
from ..generation.completions import complete
from ..generation.prompts import stop_ids, text_prompt
from ..interop.huggingface import save_model
from ..models.parameters import count_parameters
from ..planning.forecast import Forecast
from ..randomness import key
from ..recipe import Recipe
from ..run import Run
from ..tokenizers import Tokenizer, load_tokenizer
from ..training import checkpoint
from ..training.averaging import WeightAverage, averages, share_of
from ..training.checkpoint_files import step_of
from ..training.distributed import world
from ..training.loop import Progress
from ..training.optimizers import make_optimizer
from ..training.precision import LossScale
from ..training.schedules import accumulate_at, micro_batches_before
from .corpus import Corpus, run_corpus
from .loading import build_model, can_chat
from .planning import check_memory, forecast_here
from .scoring import ValidationSet
from .starting import with_epochs_counted
from .tokenizing import Notify, tokenizer_event, tokenizer_for

BEGINNING = 16
"""Tokens of a row that tell which it is."""


class Session:
    """The parts of a run, put together; and what the loop asks for from time to time."""

    def __init__(self, this: Run, recipe: Recipe, notify: Notify, retrain: bool, force: bool = False):
        self.run, self.recipe, self._notify = this, recipe, notify
        self.tokenizer = self._find_tokenizer(retrain)
        self.forecast = self._forecast()
        if not force:
            check_memory(recipe, self.forecast)
        notify({"event": "phase", "text": "preparing the data"})
        self.corpus = self._find_corpus()
        if recipe.train.epochs is not None:
            self._count_epochs()
            recipe = self.recipe
        self.batches = self.corpus.batches
        self._held_out = ValidationSet(self.corpus)
        self.model = build_model(recipe, self.tokenizer)
        self.optimizer = make_optimizer(recipe.train)
        self.average = WeightAverage(self.model.trainable_parameters()) if averages(recipe.train) else None
        self.loss_scale = LossScale.of(recipe.train)
        self.progress = Progress()
        self.figures: dict[str, float] = {}
        self._load_newest()

    def _forecast(self) -> Forecast:
        """Of this process: one of several takes only its share of each batch."""
        train = self.recipe.train
        share = train.model_copy(update={"batch_size": max(train.batch_size // world().size, 1)})
        return forecast_here(self.recipe.model_copy(update={"train": share}), self.tokenizer.vocab_size)

    def _count_epochs(self) -> None:
        """From now on the recipe says how many steps they are, in the run's folder too."""
        self.recipe = with_epochs_counted(self.recipe, self.corpus.rows)
        self.corpus = replace(self.corpus, recipe=self.recipe)
        self.forecast = self._forecast()
        self.run.write_recipe(self.recipe)

    def _load_newest(self) -> None:
        state = checkpoint.load_newest(self.run.checkpoints, self.model, self.optimizer, self.average, self._warn)
        if state is not None:
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.progress = Progress.from_json(state["progress"])
        if self.loss_scale.window is not None:  # a branch may compute in another precision
            self.loss_scale.restore(state.get("loss_scale"))

    @contextmanager
    def batch_at(self) -> Iterator[Callable[[int], Batch]]:
        """The loop's batches; those that are encoded on the way are made by a thread, ahead of the step."""
        if self.recipe.data.store:
            yield self.corpus.batch_at
            return
        train = self.recipe.train
        first = micro_batches_before(self.progress.step, train)
        with closing(prefetch(self.corpus.batch_at, range(first, sys.maxsize))) as ahead:
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

    def _find_corpus(self) -> Corpus:
        corpus = run_corpus(self.run, self.recipe, self.tokenizer, self._report_documents)
        return replace(corpus, rank=world().rank, ranks=world().size)

    def _report_documents(self, documents: int, tokens: int) -> None:
        self._notify({"event": "progress", "text": f"{documents:,} documents, {tokens:,} tokens"})

    def start(self) -> None:
        """Log what is about to be trained. The model of an earlier session goes: the checkpoint it came from stays."""
        train = self.recipe.train
        sequences = train.batch_size * accumulate_at(self.progress.step, train)
        if self.progress.step < train.steps:
            shutil.rmtree(self.run.model, ignore_errors=True)
        self._prune()
        self.log({"event": "data", "rows_by_source": self.corpus.rows_by_source(), "left_out": self.corpus.left_out()})
        self.log(
            {
                "event": "start",
                "run": str(self.run.path),
                "recipe": self.recipe.name,
                "parameters": count_parameters(self.model),
                "step": self.progress.step,
                "steps": train.steps,
                "vocab_size": self.tokenizer.vocab_size,
                "train_tokens": self.corpus.train_tokens,
                "validation_tokens": self.corpus.validation_tokens,
                "effective_batch_size": sequences,
                "context": self.recipe.model.context,
                "tokens_per_step": sequences * self.recipe.model.context,
                **device.describe(),
            }
        )
        self.log({"event": "forecast", **self.forecast.to_json()})

    def _warn(self, sentence: str) -> None:
        self.log({"event": "warning", "text": sentence})

    def log(self, event: dict[str, Any]) -> None:
        self.run.log(event)
        if event["event"] == "sample":
            self.run.add_sample(event["step"], event["text"])
        self._notify(event)

    def save(self, progress: Progress) -> None:
        checkpoint.save(self.run.checkpoints, progress.step, self.model, self.optimizer, self.state(), self.average)
        self._prune()
        self._notify({"event": "saved", "step": progress.step})

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to remember beside arrays."""
        progress = self.progress
        val_loss = progress.val_loss if progress.validated_step == progress.step else None
        return {"progress": progress.to_json(), "loss_scale": self.loss_scale.to_json(), "val_loss": val_loss}

    def _prune(self) -> None:
        checkpoint.prune(self.run.checkpoints, self.recipe.train.keep_checkpoints, self.recipe.train.keep_best)

    def name_batches(self, numbers: range) -> str:
        """Which rows of the order of training these micro-batches are, and how the first one begins."""
        size = self.recipe.train.batch_size
        rows = f"rows {numbers[0] * size:,} to {(numbers[-1] + 1) * size - 1:,} of the order of training"
        if not self.recipe.data.store:  # then batches come in order, and only once
            return rows
        tokens = self.batches.at(numbers[0]).tokens[0, :BEGINNING].tolist()
        return f"{rows}; the first begins {self.tokenizer.decode(tokens)!r}"

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

    def take_best(self) -> None:
        """After training, where the recipe asks for the best weights: these from now on, and their figures."""
        best = self._load_best()
        if world().any(best is not None):
            self.average = None  # if there is one, that is what has been loaded
            world().copy_first(weights := self.model.parameters())
            self.model.update(weights)
            self.log({"event": "best", "step": best, **self.validate()})

    def _load_best(self) -> int | None:
        path = checkpoint.load_best_weights(self.run.checkpoints, self.model)
        return None if path is None else step_of(path)

    def save_model(self) -> None:
        chat = can_chat(self.recipe, self.tokenizer)
        with self._averaged():
            save_model(self.run.model, self.model, self.tokenizer, self.recipe.generate, chat_template=chat)
