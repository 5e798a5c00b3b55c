"""Training from scratch: tokenizer, shards, steps, checkpoints, samples, model directory."""

import itertools
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from .. import device, run
from ..data import sources
from ..data.batches import Batches, document_starts
from ..data.files import Document
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
from ..tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from ..training import checkpoint
from ..training.loop import Hooks, Progress
from ..training.loop import train as run_loop
from ..training.optimizers import make_optimizer
from ..training.step import Step
from .loading import build_model, can_chat
from .scoring import ValidationSet, run_shards

Notify = Callable[[dict[str, Any]], None]
"""Gets every event of a stage. What log.jsonl gets, and as the work goes on {"event": "phase", "text": ...},
{"event": "progress", "text": ...}, {"event": "warning", "text": ...} and {"event": "saved", "step": ...}.
"""


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
) -> TrainResult:
    """Train a tokenizer and a model from scratch, or go on with a run where its last checkpoint is.

    The same recipe gives the same weights, however often the run was interrupted. Raises UserError for whatever the
    user can mend; a new run that failed before its first checkpoint leaves nothing behind.
    """
    device.configure()
    this = run.find(name, root) if resume else run.new(name, recipe, root)
    this.lock()
    try:
        if resume:
            _check_same_recipe(this, recipe)
        this.start(recipe)
        return _train(_Session(this, recipe, notify), stop_requested)
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
    step = Step(session.model, session.optimizer, recipe.train.max_grad_norm)
    hooks = Hooks(session.log, session.validate, session.sample, session.save, stop_requested)
    session.start()
    status = run_loop(step, session.batches.at, recipe.train, recipe.seed, progress, hooks)
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

    def __init__(self, this: Run, recipe: Recipe, notify: Notify):
        self.run, self.recipe, self._notify = this, recipe, notify
        self.tokenizer = _tokenizer(this, recipe, notify)
        notify({"event": "phase", "text": "preparing the data"})
        self._shards = run_shards(this, recipe, self.tokenizer, self._report_documents)
        text, train = self._shards.train, recipe.train
        starts = document_starts(text.offsets, recipe.model.context) if recipe.data.rows == "documents" else None
        self.batches = Batches(text.tokens, recipe.model.context, train.batch_size, recipe.seed, starts)
        self._held_out = ValidationSet(recipe, self._shards, self.tokenizer)
        self.model = build_model(recipe, self.tokenizer)
        _check_memory(self.model)
        self.optimizer = make_optimizer(recipe.train)
        self.progress = Progress()
        if saved := checkpoint.all_checkpoints(this.checkpoints):
            state = checkpoint.load(saved[-1], self.model, self.optimizer)
            self.progress = Progress.from_json(state["progress"])
        self.figures: dict[str, float] = {}

    def _report_documents(self, documents: int, tokens: int) -> None:
        self._notify({"event": "progress", "text": f"{documents:,} documents, {tokens:,} tokens"})

    def start(self) -> None:
        """Log what is about to be trained. The model of an earlier session goes: the checkpoint it came from stays."""
        train = self.recipe.train
        if self.progress.step < train.steps:
            shutil.rmtree(self.run.model, ignore_errors=True)
        checkpoint.prune(self.run.checkpoints, train.keep_checkpoints)
        self.log(
            {
                "event": "start",
                "run": str(self.run.path),
                "recipe": self.recipe.name,
                "parameters": count_parameters(self.model),
                "step": self.progress.step,
                "steps": train.steps,
                "vocab_size": self.tokenizer.vocab_size,
                "train_tokens": len(self._shards.train.tokens),
                "validation_tokens": len(self._shards.validation.tokens),
                "tokens_per_step": train.batch_size * train.accumulate * self.recipe.model.context,
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
        checkpoint.save(self.run.checkpoints, progress.step, self.model, self.optimizer, state)
        checkpoint.prune(self.run.checkpoints, self.recipe.train.keep_checkpoints)
        self._notify({"event": "saved", "step": progress.step})

    def validate(self) -> dict[str, float]:
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
            yield prompt + complete(self.model, self.tokenizer, ids, self.recipe.generate, draw, stop).text

    def save_model(self) -> None:
        chat = can_chat(self.recipe, self.tokenizer)
        save_model(self.run.model, self.model, self.tokenizer, self.recipe.generate, chat_template=chat)


def _check_memory(model: Transformer) -> None:
    """Refuse, before a byte of it is made, a model whose weights, gradients and momenta are beyond this machine."""
    needed, there = 12 * count_parameters(model), device.physical_memory()
    if needed > there:
        raise UserError(
            f"to train {count_parameters(model):,} parameters takes more than {needed / 1e9:,.1f} GB, and this machine "
            f"has {there / 1e9:,.1f} GB; choose a smaller model"
        )


def _tokenizer(this: Run, recipe: Recipe, notify: Notify) -> Tokenizer:
    """The run's tokenizer; the first time it is trained on the run's documents, or copied in."""
    if (this.tokenizer / "tokenizer_config.json").is_file():
        return load_tokenizer(this.tokenizer)
    wanted = recipe.tokenizer
    if wanted.kind == "directory":
        assert wanted.path is not None
        tokenizer = load_tokenizer(Path(wanted.path).expanduser())
    else:
        tokenizer = _trained_tokenizer(recipe, notify)
    try:
        tokenizer.save(this.tokenizer, model_max_length=recipe.model.context)
    except OSError as error:
        raise UserError(f"the tokenizer could not be written to {this.tokenizer}: {error.strerror}") from error
    return tokenizer


def _trained_tokenizer(recipe: Recipe, notify: Notify) -> Tokenizer:
    def report(stage: str, done: int, total: int) -> None:
        text = f"{stage} {done:,} of {total:,}" if total else f"{stage} {done / 1e6:,.0f}M characters"
        notify({"event": "progress", "text": text})

    documents = sources.documents(recipe.data, recipe.seed)
    wanted = recipe.tokenizer
    assert wanted.kind != "directory"
    kind = {"bpe": f"byte-level BPE, {wanted.vocab_size:,} tokens", "word": f"{wanted.vocab_size:,} words"}
    notify({"event": "phase", "text": f"training the tokenizer ({kind.get(wanted.kind, 'characters')})"})
    texts = itertools.chain.from_iterable(map(_texts, documents))
    options = {} if wanted.kind == "char" else {"progress": report}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tokenizer = train_tokenizer(
            wanted.kind, texts, wanted.vocab_size, special_tokens=wanted.special_tokens, **options
        )
    for warning in caught:
        notify({"event": "warning", "text": str(warning.message)})
    return tokenizer


def _texts(document: Document) -> list[str]:
    return [document] if isinstance(document, str) else [message["content"] for message in document]
