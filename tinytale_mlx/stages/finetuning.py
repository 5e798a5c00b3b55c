"""Fine-tuning: a trained model, examples to follow, and what of the model learns from them."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from .. import device, disk, recipe_files, run
from ..data.shards import byte_lengths
from ..errors import UserError
from ..evaluation.loss import evaluate
from ..interop.huggingface import TEMPLATE, save_model
from ..models.parameters import count_parameters, named_arrays
from ..planning.machine import Machine
from ..recipe import FinetuneRecipe, GenerateRecipe, TrainRecipe
from ..run import Run
from ..tokenizers.templates import Template
from ..training.loop import train as run_loop
from ..training.losses import token_loss
from ..training.optimizers import make_optimizer
from ..training.precision import prepare
from ..training.schedules import accumulate_at
from ..training.step import Step
from ..tuning import Adapter, dropout_keys, lora_plus, save_adapter
from .adapting import Trained, chat_encoder, for_losses, is_ours, load_base, longest_example, run_of, tune
from .finetune_data import check_same, choose_template, first_question, read_examples, replayed_corpus
from .loading import Loaded
from .planning import this_machine
from .sitting import Sitting, sit_with_base
from .tokenizing import Notify
from .trackers import Tracker
from .training import TrainResult
from .tune_planning import TuneForecast, check_tuning, forecast_tuning


@dataclass
class FinetuneResult(TrainResult):
    @property
    def model(self) -> Path:
        """What came of it: a model directory, or an adapter."""
        return self.run.model if (self.run.model / "config.json").is_file() else self.run.adapter


# ---------------------------------------------------------------------- which base, with which recipe
def finetune_recipe(base: str | None, overrides: Sequence[str], root: Path = run.ROOT) -> FinetuneRecipe:
    """A new recipe for the base, by default the latest run; of an adapter's run, the model below the adapter.

    Raises UserError for an unknown key, a value out of range, and where there is no run.
    """
    if base is None:
        latest = run.find(None, root)
        base = latest.name
        if latest.is_finetune() and not (latest.model / "config.json").is_file():
            base = latest.finetune_recipe().base
    found = [one for one in (Run(Path(base)), Run(root / base)) if one.exists()]
    if found:
        base = found[0].name if found[0].path.resolve().parent == root.resolve() else str(found[0].path.resolve())
    elif Path(base).is_dir():
        base = str(Path(base).resolve())
    content: dict[str, Any] = {"name": "finetune", "base": base}
    recipe = recipe_files.make_finetune(content, list(overrides))
    if found and recipe.tune.method == "full" and "optimizer" not in recipe.train.model_fields_set:
        recipe = recipe_files.make_finetune(content | _as_trained(found[0]), list(overrides))
    if recipe.name != "finetune":
        return recipe
    method = f"q{recipe.tune.method}" if recipe.tune.quantize else recipe.tune.method
    return recipe.model_copy(update={"name": f"{Path(base).name}-{method}"})


def _as_trained(base: Run) -> dict[str, Any]:
    """What Muon has trained learns best from Muon when it is tuned as a whole (Liu et al. 2025, section 3.5.3)."""
    if base.is_align():
        return {}
    before = base.any_recipe().train
    assert isinstance(before, TrainRecipe)
    return {"train": {"optimizer": "muon", "learning_rate": before.learning_rate}} if before.optimizer == "muon" else {}


# ---------------------------------------------------------------------- one sitting
class FinetuneSession(Sitting):
    """A base with an adapter on (or trained itself), examples, and an optimiser for what learns."""

    def __init__(self, this: Run, recipe: FinetuneRecipe, loaded: Loaded, root: Path, notify: Notify, force: bool):
        super().__init__(this, notify)
        self.loaded = loaded
        self.tokenizer, self.stop = loaded.tokenizer, loaded.stop
        self.template = choose_template(recipe.data, loaded)
        context = longest_example(loaded.model, recipe)
        changes: dict[str, Any] = {"context": context}
        if isinstance(self.template, Template):  # another model's stays what the base brings
            changes["template"] = self.template.name
        self.recipe = recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})
        _check_architecture(loaded.model, recipe)
        self.forecast = self._forecast(context)
        if self.forecast is not None and not force:
            check_tuning(recipe, context, self.forecast)
        notify({"event": "phase", "text": "preparing the examples"})
        replayed = replayed_corpus(run_of(recipe.base, root), recipe, loaded.tokenizer)
        self.examples = read_examples(recipe, loaded, context, replayed)
        check_same(this, self.examples.fingerprint)
        self.forecast = self._forecast(self.examples.longest)
        self.recipe = recipe.model_copy(update={"generate": recipe.generate or self._samples()})
        self.generate = self.recipe.generate or loaded.settings
        this.write_recipe(self.recipe)
        self._byte_lengths = byte_lengths(loaded.tokenizer)
        self.tuned = tune(loaded, recipe)
        prepare(self.tuned.model, recipe.train.precision)
        self.prepare(recipe.seed, self.tuned.model, Trained(self.tuned.model), _optimizer(recipe))

    @property
    def train(self) -> TrainRecipe:
        return self.recipe.train

    @cached_property
    def _machine(self) -> Machine:
        return this_machine(self.loaded.model.config, self.train.precision, seconds=0.05)

    def _forecast(self, longest: int) -> TuneForecast | None:
        """Of examples up to so long; nothing is known of others' architectures."""
        if not is_ours(self.loaded.model):
            return None
        config = self.loaded.model.config.model_copy(update={"context": longest})
        return forecast_tuning(config, self.recipe, self._machine)

    def _samples(self) -> GenerateRecipe:
        """The base's settings, and as prompts what two of the examples ask."""
        asked = [first_question(one) for one in self.examples.first]
        texts = [one if isinstance(one, str) else one[-1]["content"] for one in asked]
        return self.loaded.settings.model_copy(update={"prompts": texts})

    def held_out(self) -> dict[str, float]:
        score = evaluate(for_losses(self.model), self.examples.validation_batches(), self._byte_lengths)
        return {"val_loss": score.loss, "val_perplexity": score.perplexity, "val_bits_per_byte": score.bits_per_byte}

    def prompt(self, text: str) -> tuple[list[int], str]:
        encode = chat_encoder(self.tokenizer, self.template)
        return encode([{"role": "user", "content": text}]), f"{text}\n\n"

    def loss(self, model: Any, arrays: Any, key: mx.array) -> tuple[mx.array, mx.array]:
        return token_loss(for_losses(model), arrays, key, self.train.loss_chunk_tokens)

    def start(self) -> None:
        """Log what is about to be trained. What an earlier sitting made of it goes: its checkpoint stays."""
        train, longest = self.train, self.examples.longest
        rows = train.batch_size * accumulate_at(self.progress.step, train)
        if self.progress.step < train.steps:
            shutil.rmtree(self.run.model, ignore_errors=True)
            shutil.rmtree(self.run.adapter, ignore_errors=True)
        self._prune()
        figures = self.examples.figures()
        self.log({"event": "examples", "template": self.template.name, **figures})
        if figures["left_out"]:
            reasons = ", ".join(
                f"{count:,} {reason.replace('_', ' ')}" for reason, count in figures["left_out"].items()
            )
            self.warn(f"not all examples are trained as they are: {reasons}")
        trained = sum(array.size for _, array in named_arrays(self.model.trainable_parameters()))
        self.log(
            {
                "event": "start",
                "run": str(self.run.path),
                "recipe": self.recipe.name,
                "method": self.recipe.tune.method,
                "parameters": count_parameters(self.model),
                "trained_parameters": trained,
                "step": self.progress.step,
                "steps": train.steps,
                "vocab_size": self.tokenizer.vocab_size,
                "train_tokens": figures["trained_tokens"],
                "effective_batch_size": rows,
                "context": longest,
                "tokens_per_step": rows * longest,
                **device.describe(),
            }
        )
        if self.forecast is not None:
            self.log({"event": "forecast", **self.forecast.to_json()})

    def save_result(self) -> None:
        """The tuned model as a directory, where all of it was trained; else the adapter, and the template beside it."""
        with self.averaged():
            adapter = self.tuned.adapter()
            if adapter.method == "full" and is_ours(self.model):
                save_model(self.run.model, self.model, self.tokenizer, self.generate, self.template)
                return
            save_tuned(self.run.adapter, adapter, self.template.jinja)


def save_tuned(folder: Path, adapter: Adapter, template: str) -> None:
    save_adapter(folder, adapter)
    with disk.writing("the chat template", folder), disk.replacing(folder / TEMPLATE) as temporary:
        temporary.write_text(template, encoding="utf-8", newline="\n")


def _optimizer(recipe: FinetuneRecipe) -> optim.Optimizer:
    ratio = recipe.tune.lora_plus_ratio
    return lora_plus(lambda: make_optimizer(recipe.train), ratio) if ratio else make_optimizer(recipe.train)


def _check_architecture(model: Any, recipe: FinetuneRecipe) -> None:
    """Refuse what works with our own architectures only. Raises UserError."""
    train = recipe.train
    asked = {
        "train.loss_chunk_tokens": train.loss_chunk_tokens is not None,
        "train.gradient_checkpointing": train.gradient_checkpointing != "none",
        "data.rows packed": recipe.data.rows == "packed",
    }
    lacking = [name for name, wanted in asked.items() if wanted]
    if lacking and not is_ours(model):
        raise UserError(f"{lacking[0]} needs an architecture of tinytale's own, and {recipe.base} has another")


# ---------------------------------------------------------------------- the stage
def finetune(
    recipe: FinetuneRecipe,
    name: str | None = None,
    resume: bool = False,
    root: Path = run.ROOT,
    notify: Notify = lambda event: None,
    stop_requested: Callable[[], bool] = lambda: False,
    force: bool = False,
    trackers: Sequence[Tracker] = (),
) -> FinetuneResult:
    """Tune a model on examples, or go on with a fine-tuning where its last checkpoint is.

    The same recipe gives the same weights, however often the run was interrupted. Raises UserError for whatever the
    user can mend; a new run that failed before its first checkpoint leaves nothing behind.
    """
    make = partial(FinetuneSession, force=force)
    return sit_with_base(
        recipe, load_base, make, _train, name, resume, root, notify, stop_requested, trackers
    )  # fmt: skip


def _train(session: FinetuneSession, stop_requested: Callable[[], bool]) -> FinetuneResult:
    train, model = session.train, session.model
    if train.gradient_checkpointing != "none":
        inner = model if hasattr(model, "recompute") else model.model
        inner.recompute(train.gradient_checkpointing, train.gradient_checkpointing_every)
    step = Step(
        model,
        session.optimizer,
        train.max_grad_norm,
        session.loss,
        precision=train.precision,
        loss_scale=session.loss_scale,
        around=partial(_dropping, model),
    )
    session.start()
    hooks = session.hooks(stop_requested)
    status = run_loop(step, session.examples.batch_at, train, session.recipe.seed, session.progress, hooks)
    if train.final_model == "best":
        session.take_best()
    session.save_result()
    result = FinetuneResult(session.run, status, session.progress, session.figures)
    if status != "interrupted":
        result.samples = session.closing_samples()
    predicted = {"predicted_peak_memory_bytes": session.forecast.peak} if session.forecast else {}
    session.log({"event": "end", **result.to_json(), **predicted})
    return result


def _dropping(model: Any, key: mx.array) -> Any:
    """Dropout in the adapters, from other keys than those of the model's own."""
    return dropout_keys(model, key + mx.array([0, 1], mx.uint32))
