"""The stages of a model's life: a recipe in, a run directory out. The only module that puts the parts together."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from . import device, recipe_files, run
from .data import sources
from .data.batches import Batches, validation_batches
from .data.files import Document
from .data.prepare import encode_documents, open_or_prepare
from .data.shards import Shards, byte_lengths
from .errors import UserError
from .evaluation.loss import Score, evaluate
from .generation.engine import complete
from .generation.prompts import has_chat_markers, stop_ids, text_prompt
from .interop.huggingface import load_model, save_model
from .interop.layouts import layout_of, why_own
from .models.transformer import Transformer, count_parameters
from .randomness import key
from .recipe import DataRecipe, GenerateRecipe, Recipe
from .recipe_files import differences
from .run import Run
from .tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from .training import checkpoint
from .training.loop import Hooks, Progress
from .training.loop import train as run_loop
from .training.optimizers import make_optimizer
from .training.step import Step

Notify = Callable[[dict[str, Any]], None]
"""Gets every event of a stage: what log.jsonl gets, and {"event": "phase", "text": ...} as the work goes on."""


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
    if resume:
        _check_same_recipe(this, recipe)
    try:
        return _train(this, recipe, notify, stop_requested)
    except BaseException:
        if not resume and not checkpoint.all_checkpoints(this.checkpoints):
            this.discard()
        raise


def _check_same_recipe(this: Run, recipe: Recipe) -> None:
    changed = differences(this.recipe(), recipe)
    if changed:
        raise UserError(
            f"the run {this.name} was started with another recipe ({'; '.join(changed)}); "
            "resume it without changes, or start a new run"
        )


def _train(this: Run, recipe: Recipe, notify: Notify, stop_requested: Callable[[], bool]) -> TrainResult:
    this.start(recipe)
    tokenizer = _tokenizer(this, recipe, notify)
    notify({"event": "phase", "text": "preparing the data"})
    shards = open_or_prepare(recipe.data, tokenizer, this.data, recipe.seed)
    model = build_model(recipe, tokenizer)
    optimizer = make_optimizer(recipe.train)
    progress = Progress()
    if saved := checkpoint.all_checkpoints(this.checkpoints):
        progress = Progress.from_json(checkpoint.load(saved[-1], model, optimizer)["progress"])
    step = Step(model, optimizer, recipe.train.max_grad_norm)
    batches = Batches(shards.train.tokens, recipe.model.context, recipe.train.batch_size, recipe.seed)
    held_out = ValidationSet(recipe, shards, tokenizer)

    def log(event: dict[str, Any]) -> None:
        this.log(event)
        if event["event"] == "sample":
            this.add_sample(event["step"], event["text"])
        notify(event)

    def save(progress: Progress) -> None:
        checkpoint.save(this.checkpoints, progress.step, model, optimizer, {"progress": progress.to_json()})
        checkpoint.prune(this.checkpoints, recipe.train.keep_checkpoints)
        notify({"event": "saved", "step": progress.step})

    figures: dict[str, float] = {}

    def validate() -> dict[str, float]:
        figures.update(held_out.figures(model))
        return figures

    hooks = Hooks(
        log=log,
        evaluate=validate,
        sample=lambda step: next(_samples(model, tokenizer, recipe, step)),
        save=save,
        stop_requested=stop_requested,
    )
    log(
        {"event": "start", "run": str(this.path), "recipe": recipe.name, "parameters": count_parameters(model)}
        | {"step": progress.step, "steps": recipe.train.steps, "vocab_size": tokenizer.vocab_size}
        | {"train_tokens": len(shards.train.tokens), "validation_tokens": len(shards.validation.tokens)}
        | {"tokens_per_step": recipe.train.batch_size * recipe.train.accumulate * recipe.model.context}
        | device.describe()
    )
    status = run_loop(step, batches.at, recipe.train, recipe.seed, progress, hooks)
    save_model(this.model, model, tokenizer, recipe.generate, chat_template=_can_chat(recipe, tokenizer))
    if status == "finished" and not figures:  # resumed, with nothing left to do
        validate()
    result = TrainResult(this, status, progress, figures)
    if status == "finished":
        for text in _samples(model, tokenizer, recipe, progress.step):
            result.samples.append(text)
            log({"event": "sample", "step": progress.step, "text": text})
    log({"event": "end", "status": status, **result.to_json()})
    return result


def _tokenizer(this: Run, recipe: Recipe, notify: Notify) -> Tokenizer:
    """The run's tokenizer; the first time it is trained on the run's documents, or copied in."""
    if (this.tokenizer / "tokenizer_config.json").is_file():
        return load_tokenizer(this.tokenizer)
    wanted = recipe.tokenizer
    if wanted.kind == "directory":
        assert wanted.path is not None
        tokenizer = load_tokenizer(Path(wanted.path).expanduser())
    else:
        notify({"event": "phase", "text": f"training the tokenizer ({wanted.kind}, {wanted.vocab_size:,} tokens)"})
        texts = itertools.chain.from_iterable(map(_texts, sources.documents(recipe.data, recipe.seed)))
        tokenizer = train_tokenizer(
            wanted.kind, texts, wanted.vocab_size, special_tokens=wanted.special_tokens
        )
    tokenizer.save(this.tokenizer, model_max_length=recipe.model.context)
    return tokenizer


def _texts(document: Document) -> list[str]:
    return [document] if isinstance(document, str) else [message["content"] for message in document]


def build_model(recipe: Recipe, tokenizer: Tokenizer) -> Transformer:
    """The recipe's model with freshly drawn weights, its vocabulary that of the tokenizer, or larger where the recipe says so."""
    asked = recipe.model.vocab_size
    if asked is not None and asked < tokenizer.vocab_size:
        raise UserError(f"model.vocab_size {asked} is below the {tokenizer.vocab_size} tokens of the tokenizer")
    config = recipe.model.model_copy(update={"vocab_size": asked or tokenizer.vocab_size})
    return Transformer(config, recipe.seed)


def blueprint(recipe: Recipe) -> Transformer:
    """The recipe's model before anything is trained or evaluated: shapes and counts, but no memory used."""
    vocabulary = recipe.model.vocab_size or recipe.tokenizer.vocab_size
    return Transformer(recipe.model.model_copy(update={"vocab_size": vocabulary}), recipe.seed)


class ValidationSet:
    """The held-out text of a run, whole or up to `validation_batches`."""

    def __init__(self, recipe: Recipe, shards: Shards, tokenizer: Tokenizer):
        self._recipe, self._tokens = recipe, shards.validation.tokens
        self._byte_lengths = byte_lengths(tokenizer)

    def score(self, model: Transformer) -> Score:
        train = self._recipe.train
        batches = validation_batches(self._tokens, self._recipe.model.context, train.batch_size)
        return evaluate(model, itertools.islice(batches, train.validation_batches), self._byte_lengths)

    def figures(self, model: Transformer) -> dict[str, float]:
        score = self.score(model)
        return {
            "val_loss": score.loss,
            "val_perplexity": score.perplexity,
            "val_bits_per_byte": score.bits_per_byte,
        }


def _samples(model: Transformer, tokenizer: Tokenizer, recipe: Recipe, step: int) -> Iterator[str]:
    """A completion of each of the recipe's prompts, other ones after every number of steps."""
    for number, prompt in enumerate(recipe.generate.prompts):
        ids = text_prompt(tokenizer, prompt)
        draw = key(recipe.seed, "sample", step, number)
        yield prompt + complete(model, tokenizer, ids, recipe.generate, draw, stop_ids(tokenizer)).text


def _can_chat(recipe: Recipe, tokenizer: Tokenizer) -> bool:
    """Whether the model has read conversations: the embedded corpus holds some."""
    return "tales" in recipe.data.source and has_chat_markers(tokenizer)


@dataclass
class Loaded:
    """A model that is ready to write, and where it came from."""

    model: Transformer
    tokenizer: Tokenizer
    settings: GenerateRecipe
    can_chat: bool
    path: Path


def load(reference: str | None = None, root: Path = run.ROOT) -> Loaded:
    """A model directory, or the model of a run by name or path; without a reference, of the latest run.

    A run that has not finished is read from its newest checkpoint. Raises UserError where there is nothing to load.
    """
    device.configure()
    if reference is not None and (Path(reference) / "config.json").is_file():
        return _load_directory(Path(reference), GenerateRecipe())
    this = run.find(reference, root)
    recipe = this.recipe()
    if (this.model / "config.json").is_file():
        return _load_directory(this.model, recipe.generate)
    saved = checkpoint.all_checkpoints(this.checkpoints)
    if not saved:
        raise UserError(f"the run {this.name} has no checkpoint yet; `tinytale train --resume --name {this.name}` goes on with it")
    tokenizer = load_tokenizer(this.tokenizer)
    model = build_model(recipe, tokenizer)
    checkpoint.load_weights(saved[-1], model)
    return Loaded(model, tokenizer, recipe.generate, _can_chat(recipe, tokenizer), saved[-1])


def _load_directory(path: Path, settings: GenerateRecipe) -> Loaded:
    model, _ = load_model(path)
    tokenizer = load_tokenizer(path)
    template = (path / "chat_template.jinja").is_file()
    return Loaded(model, tokenizer, settings, template and has_chat_markers(tokenizer), path)


def score_text(loaded: Loaded, data: DataRecipe, batch_size: int = 8) -> Score:
    """Loss of a model on documents of any source, all of them, in windows of the model's context."""
    encoded = (encode_documents([one], loaded.tokenizer)[0] for one in sources.documents(data, seed=0))
    tokens = np.fromiter(itertools.chain.from_iterable(encoded), np.int32)
    batches = validation_batches(tokens, loaded.model.config.context, batch_size)
    return evaluate(loaded.model, batches, byte_lengths(loaded.tokenizer))


def score_run(this: Run) -> Score:
    """Loss of a run's model on the text that the run held out."""
    recipe = this.recipe()
    loaded = load(str(this.path))
    shards = open_or_prepare(recipe.data, loaded.tokenizer, this.data, recipe.seed)
    return ValidationSet(recipe, shards, loaded.tokenizer).score(loaded.model)


def describe(what: str | None, overrides: list[str], root: Path = run.ROOT) -> dict[str, Any]:
    """Facts about a recipe, a run or a model directory; `shapes` lists every parameter."""
    if what is not None and (what in recipe_files.names() or what.endswith((".yaml", ".yml"))):
        recipe = recipe_files.load(what, overrides)
        model, title = blueprint(recipe), {"recipe": recipe.name, "description": recipe.description}
    else:
        if overrides:
            raise UserError("--set changes a recipe; a trained model is what it is")
        loaded = load(what, root)
        model, title = loaded.model, {"model": str(loaded.path)}
    config = model.config
    layout = layout_of(config)
    return {
        **title,
        "parameters": count_parameters(model),
        "trainable_parameters": sum(array.size for _, array in tree_flatten(model.trainable_parameters())),
        "layout": layout.name,
        "layout_note": why_own(config) if layout.name == "own" else "loads in mlx-lm as it is",
        "context": config.context,
        "vocab_size": config.vocab_size,
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "heads": config.heads,
        "kv_heads": config.num_kv_heads,
        "positions": config.positions,
        "shapes": [(name, array.shape, array.size) for name, array in tree_flatten(model.parameters())],
    }
