"""A training from scratch: its parts put together, and what the loop asks of them from time to time."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from .. import device, disk
from ..data.prefetch import prefetch
from ..data.rows import Batch
from ..generation.prompts import stop_ids, text_prompt
from ..interop.huggingface import save_model
from ..models.parameters import count_parameters
from ..planning.forecast import Forecast
from ..recipe import Recipe, TrainRecipe
from ..run import Run
from ..tokenizers import Tokenizer, load_tokenizer
from ..training.distributed import world
from ..training.optimizers import make_optimizer
from ..training.schedules import accumulate_at, micro_batches_before
from .corpus import Corpus, run_corpus
from .loading import build_model, can_chat
from .planning import check_memory, forecast_here
from .scoring import ValidationSet
from .sitting import Sitting
from .starting import with_epochs_counted
from .tokenizing import Notify, tokenizer_event, tokenizer_for

BEGINNING = 16
"""Tokens of a row that tell which it is."""


class Session(Sitting):
    """The parts of a run, put together; and what the loop asks for from time to time."""

    def __init__(self, this: Run, recipe: Recipe, notify: Notify, retrain: bool, force: bool = False):
        super().__init__(this, notify)
        self.recipe = recipe
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
        self.generate, self.stop = recipe.generate, stop_ids(self.tokenizer)
        model = build_model(recipe, self.tokenizer)
        self.prepare(recipe.seed, model, model, make_optimizer(recipe.train))

    @property
    def train(self) -> TrainRecipe:
        return self.recipe.train

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

    def name_batches(self, numbers: range) -> str:
        """Which rows of the order of training these micro-batches are, and how the first one begins."""
        size = self.recipe.train.batch_size
        rows = f"rows {numbers[0] * size:,} to {(numbers[-1] + 1) * size - 1:,} of the order of training"
        if not self.recipe.data.store:  # then batches come in order, and only once
            return rows
        tokens = self.batches.at(numbers[0]).tokens[0, :BEGINNING].tolist()
        return f"{rows}; the first begins {self.tokenizer.decode(tokens)!r}"

    def held_out(self) -> dict[str, float]:
        return self._held_out.figures(self.model)

    def prompt(self, text: str) -> tuple[list[int], str]:
        return text_prompt(self.tokenizer, text), text

    def save_model(self) -> None:
        chat = can_chat(self.recipe, self.tokenizer)
        with self.averaged():
            save_model(self.run.model, self.model, self.tokenizer, self.recipe.generate, chat_template=chat)
