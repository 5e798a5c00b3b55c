"""What a training begins with: nothing, its own last checkpoint, one of another run, or another model's weights.

A run has one recipe from its first step to its last; that is what makes its weights a function of the recipe. What does
not touch the mathematics, such as how often to save, may change whenever it is resumed. Anything else makes another
run: a branch, which begins with a checkpoint of the first.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .. import disk
from ..errors import UserError
from ..models.parameters import named_arrays
from ..models.transformer import Transformer
from ..recipe import AlignRecipe, FinetuneRecipe, ModelConfig, Recipe, TrainRecipe
from ..recipe_files import AnyRecipe, differences, parse
from ..run import Run
from ..training import checkpoint
from ..training.checkpoint_files import Damaged, link, step_of, verify
from ..training.loop import Progress
from ..training.optimizers import make_optimizer
from ..training.schedules import steps_of_epochs
from .corpus import KEYS
from .loading import Loaded, build_model
from .tokenizing import Notify

R = TypeVar("R", Recipe, FinetuneRecipe, AlignRecipe)
FREE = {
    "description",
    *(
        f"train.{key}"
        for key in (
            *("log_every", "sample_every", "validate_every", "validation_batches", "save_every"),
            *("keep_checkpoints", "keep_best", "final_model", "early_stopping", "skip_nonfinite"),
        )
    ),
}
"""Keys that leave every step as it is, as do those of `generate`; a run may change them when it is resumed."""
SAME_WEIGHTS = {
    *("attention", "embedding_dropout", "attention_dropout", "residual_dropout"),
    *("init", "init_std", "residual_init"),
}
"""Keys in which two models may differ and still have a use for each other's weights."""


@dataclass(frozen=True)
class Given:
    """What a new run begins with, if it is anything: the checkpoint of a parent, or the weights of a source."""

    parent: Run | None = None
    from_step: int | None = None
    """Of the parent; None is its newest."""
    source: Loaded | None = None


def check_options(
    resume: bool, retrain: bool, branch: str | None, from_step: int | None, init_from: str | None
) -> None:
    """Refuse what does not go together. Raises UserError."""
    if retrain and (resume or branch is not None):
        raise UserError("a run that is resumed keeps its tokenizer; start a new run for another one")
    if retrain and init_from is not None:
        raise UserError("the weights of --init-from go with their own tokenizer; leave out --retrain")
    if init_from is not None and (resume or branch is not None):
        raise UserError("--init-from is for a new run; one that is resumed or branched off has its weights already")
    if from_step is not None and branch is None:
        raise UserError("--from-step goes with --branch NAME: a new run that goes on from that step")


def begin(this: Run, recipe: Recipe, resume: bool, given: Given, notify: Notify) -> Recipe:
    """Put into a run what it begins with, then write its recipe, without which it is none; the recipe to train with.

    Raises:
        UserError: the recipe does not fit what is there, or the disk refuses.
    """
    event = None
    if resume:
        recipe = resumable(this, recipe)
    elif given.parent is not None:
        check_branch(given.parent, recipe)
        event = fork(given.parent, this, recipe, given.from_step, notify)
    elif given.source is not None:
        recipe = with_vocabulary_of(given.source, recipe)
        event = hand_over(given.source, this, recipe)
    this.start(recipe)
    if event is not None:
        this.log(event)
        notify(event)
    return recipe


# ---------------------------------------------------------------------- the same run, resumed
def resumable(this: Run, recipe: R) -> R:
    """The recipe with which a run goes on: this one, its epochs counted in steps as they were at first.

    Raises:
        UserError: a key differs that may not; which, from what to what.
    """
    own = this.any_recipe()
    if isinstance(recipe, Recipe) and recipe.train.epochs is not None:
        assert isinstance(own, Recipe)
        if recipe.train.epochs == own.train.epochs:
            return _unchanged(this, own, _with_steps(recipe, own.train.steps))
    return _unchanged(this, own, recipe)


def _unchanged(this: Run, own: AnyRecipe, recipe: R) -> R:
    if changed := _list([line for line in differences(own, recipe) if not _free(line.partition(": ")[0], own, recipe)]):
        otherwise = "add --branch NAME: a new run that goes on from its checkpoint with the new recipe"
        raise UserError(
            f"the run {this.name} was started with another recipe ({changed}); resume it without changes, or "
            + (otherwise if isinstance(recipe, Recipe) else "start a new run")
        )
    return recipe


def _free(key: str, own: AnyRecipe, recipe: AnyRecipe) -> bool:
    if key in ("train.steps", "train.epochs"):
        return _ends_anywhere(own) and _ends_anywhere(recipe)
    return key in FREE or key.startswith("generate.")


def _ends_anywhere(recipe: AnyRecipe) -> bool:
    """Whether no step depends on how many there are in all, so that there may be more of them, or fewer."""
    train = recipe.train
    if not isinstance(train, TrainRecipe):
        return False
    return (train.schedule == "constant" or train.decay_steps is not None) and train.average_last is None


def _list(changed: list[str], most: int = 4) -> str:
    more = f" and {len(changed) - most} more" if len(changed) > most else ""
    return "; ".join(changed[:most]) + more


# ---------------------------------------------------------------------- epochs
def with_epochs_counted(recipe: Recipe, rows: int) -> Recipe:
    """The recipe with the steps that its epochs of so many rows are, and checked again with that number.

    Raises:
        UserError: the schedule does not fit into these steps.
    """
    train = recipe.train
    steps = steps_of_epochs(rows, train)
    content = recipe.model_dump(mode="json")
    content["train"] |= {"steps": steps, "epochs": None}
    parse(content, f"{train.epochs:g} epochs of this text are {steps:,} steps")
    return _with_steps(recipe, steps)


def _with_steps(recipe: Recipe, steps: int) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"steps": steps})})


# ---------------------------------------------------------------------- a branch
def check_branch(parent: Run, recipe: Recipe) -> None:
    """Refuse a recipe that has no use for the parent's checkpoints.

    Raises:
        UserError: another tokenizer or another architecture; in what they differ.
    """
    own = parent.recipe()
    changed = [line for line in differences(own, recipe) if line.startswith("tokenizer.")]
    if changed := _list([*changed, *_model_differences(own.model, recipe.model)]):
        raise UserError(f"the weights of the run {parent.name} don't fit the new recipe ({changed})")


def fork(parent: Run, this: Run, recipe: Recipe, from_step: int | None, notify: Notify) -> dict[str, Any]:
    """Give a new run another one's tokenizer, its data if that is the same, and its newest or the given checkpoint.

    Returns the event for the log.

    Raises:
        UserError: the parent has no such checkpoint, or none that is whole, or the disk refuses.
    """
    saved = checkpoint.all_checkpoints(parent.checkpoints)
    chosen = [path for path in reversed(saved) if from_step in (None, step_of(path))]
    if not chosen:
        of = "" if from_step is None else f" of step {from_step}"
        there = f"; there are {', '.join(str(step_of(path)) for path in saved)}" if saved else ""
        raise UserError(f"the run {parent.name} has no checkpoint{of} to branch from{there}")
    path = _newest_whole(chosen, notify)
    own = parent.recipe()
    with disk.writing("the data of the branch", this.data):
        shutil.copytree(parent.tokenizer, this.tokenizer)
        if (own.data, own.seed) == (recipe.data, recipe.seed):
            shutil.copy2(parent.data / KEYS, this.data / KEYS)
    link(path, this.checkpoints)
    return {"event": "branch", "from": str(parent.path), "step": step_of(path), "changes": differences(own, recipe)}


def _newest_whole(newest_first: list[Path], notify: Notify) -> Path:
    for path in newest_first[:-1]:
        try:
            verify(path)
        except Damaged as error:
            notify({"event": "warning", "text": f"{error}; the one before it is used"})
        else:
            return path
    verify(newest_first[-1])
    return newest_first[-1]


# ---------------------------------------------------------------------- another model's weights
def with_vocabulary_of(source: Loaded, recipe: Recipe) -> Recipe:
    """The recipe for a model that begins with another's weights: it has as many rows for tokens, unless it says."""
    config: ModelConfig | None = getattr(source.model, "config", None)
    if config is None or recipe.model.vocab_size is not None or config.vocab_size == source.tokenizer.vocab_size:
        return recipe
    model = recipe.model.model_copy(update={"vocab_size": config.vocab_size})
    return recipe.model_copy(update={"model": model})


def hand_over(source: Loaded, this: Run, recipe: Recipe) -> dict[str, Any]:
    """Give a new run another model's tokenizer, and its weights as the checkpoint of step 0.

    Returns the event for the log.

    Raises:
        UserError: the recipe's model is another one; in what they differ. Or the disk refuses.
    """
    if not isinstance(source.model, Transformer):
        raise UserError(f"{source.path} can't be trained: it is quantized, or of an architecture that tinytale lacks")
    model = build_model(recipe, source.tokenizer)
    if changed := _list(_model_differences(source.model.config, model.config)):
        raise UserError(f"the weights of {source.path} don't fit the recipe ({changed})")
    theirs = dict(named_arrays(source.model.parameters()))
    own = named_arrays(model.parameters())
    if odd := next((name for name, array in own if name not in theirs or theirs[name].shape != array.shape), None):
        raise UserError(f"the weights of {source.path} don't fit the recipe ({odd} has another shape)")
    model.load_weights([(name, theirs[name].astype(array.dtype)) for name, array in own])
    optimizer = make_optimizer(recipe.train)
    optimizer.init(model.trainable_parameters())
    with disk.writing("the tokenizer", this.tokenizer):
        source.tokenizer.save(this.tokenizer, model_max_length=recipe.model.context)
    checkpoint.save(this.checkpoints, 0, model, optimizer, {"progress": Progress().to_json()})
    return {"event": "init", "from": str(source.path)}


def _model_differences(own: ModelConfig, other: ModelConfig) -> list[str]:
    before, after = _meaning(own), _meaning(other)
    return [f"model.{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]


def _meaning(config: ModelConfig) -> dict[str, Any]:
    """The keys that decide what weights mean, with what is left out filled in, and without what is not used."""
    found = config.model_dump(mode="json", exclude=SAME_WEIGHTS) | {
        "kv_heads": config.num_kv_heads,
        "head_dim": config.size_per_head,
        "distinct_layers": config.num_distinct_layers,
        "context": config.context if config.positions == "learned" else None,
    }
    if config.positions != "rope":
        found["rope_theta"] = None
    if config.norm == "rmsnorm":
        found["norm_bias"] = None
    return found
