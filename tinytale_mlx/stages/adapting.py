"""A base model, and an adapter on it: loaded, quantized below it if the fine-tuning did so, put together."""

from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .. import run
from ..errors import UserError
from ..generation.memory import context_of
from ..generation.prompts import chat_prompt
from ..interop.huggingface import TEMPLATE
from ..models.parameters import named_arrays
from ..models.transformer import Transformer
from ..randomness import key
from ..recipe import FinetuneRecipe
from ..tokenizers import Tokenizer
from ..tokenizers.files import read_text
from ..tokenizers.templates import TEMPLATES, Template, find_template
from ..training import checkpoint
from ..training.checkpoint_files import step_of
from ..tuning import Adapter, Tuned, attach, import_peft, load_adapter, new_adapter
from ..tuning.adapter_files import CONFIG
from ..tuning.peft import WEIGHTS as PEFT_WEIGHTS
from ..tuning.quantize import quantize, uniform
from ..tuning.quantized_matmul import use_calibrated_product
from .loading import Loaded, load

LONGEST = 1024
"""Of the examples, where neither recipe nor model says less."""


class Trained:
    """What of a model is trained, for checkpoints: a frozen base is on the disk already."""

    def __init__(self, model: nn.Module):
        self._model = model

    def parameters(self) -> Any:
        return self._model.trainable_parameters()

    trainable_parameters = parameters

    def load_weights(self, weights: list[tuple[str, mx.array]]) -> None:
        self._model.load_weights(weights, strict=False)


class Plain:
    """A model that gives logits only, as mlx-lm's do, with the interface that the losses have: logits are its hidden
    states."""

    def __init__(self, model: Any):
        self._model = model

    def hidden(self, ids: mx.array, key: mx.array | None = None, segments: mx.array | None = None) -> mx.array:
        if segments is not None:
            raise UserError("this architecture can't read several examples in one row; leave out data.rows packed")
        return self._model(ids)

    def logits(self, hidden: mx.array) -> mx.array:
        return hidden


def for_losses(model: Any) -> Any:
    """The model as losses and scores want it."""
    return model if is_ours(model) else Plain(model)


def is_ours(model: Any) -> bool:
    """Whether the model, or the one inside a learned prompt, is of our own architecture."""
    return isinstance(model, Transformer) or isinstance(getattr(model, "model", None), Transformer)


# ---------------------------------------------------------------------- loading
def load_base(reference: str, root: Path) -> Loaded:
    """The model that is tuned. Raises UserError where it is only an adapter itself, or there is none."""
    this = run.Run(root / reference) if run.Run(root / reference).exists() else run.Run(Path(reference))
    if this.is_finetune() and not (this.model / "config.json").is_file():
        raise UserError(
            f"the run {this.name} is an adapter on another model; `tinytale fuse {this.reference}` makes a model of "
            "the two, which can then be tuned again"
        )
    loaded = load(reference, root)
    use_calibrated_product(loaded.model)
    return loaded


def quantize_base(model: nn.Module, recipe: FinetuneRecipe) -> None:
    """Before an adapter is put on, where the recipe asks for it (QLoRA)."""
    if recipe.tune.quantize is not None:
        quantize(model, uniform(model, recipe.tune.quantize))


def tune(loaded: Loaded, recipe: FinetuneRecipe) -> Tuned:
    """The base with an untrained adapter of the recipe on."""
    quantize_base(loaded.model, recipe)
    words = None
    if recipe.tune.prompt_text is not None:
        words = loaded.tokenizer.encode(recipe.tune.prompt_text)
    adapter = new_adapter(loaded.model, recipe.tune, key(recipe.seed, "adapter"), words)
    return attach(loaded.model, adapter, keep_base=False)


def load_finetuned(this: run.Run) -> tuple[Loaded, Tuned | None]:
    """The model of a fine-tuning: its model directory, or its base with its adapter on; of one that has not finished,
    from its best checkpoint."""
    recipe, root = this.finetune_recipe(), this.path.parent
    if (this.model / "config.json").is_file():
        return load(str(this.model)), None
    loaded = load_base(recipe.base, root)
    note = ""
    if this.adapter.is_dir():
        quantize_base(loaded.model, recipe)
        tuned = attach(loaded.model, load_adapter(this.adapter))
    else:
        tuned = tune(loaded, recipe)
        note = _load_checkpoint(this, tuned)
    return _with(loaded, tuned, recipe.data.template, this.adapter if not note else this.path, note), tuned


def _load_checkpoint(this: run.Run, tuned: Tuned) -> str:
    found = checkpoint.all_checkpoints(this.checkpoints)
    if not found:
        raise UserError(f"the run {this.name} has no checkpoint yet; `{this.resume_command}` goes on with it")
    trained: Any = Trained(tuned.model)
    trained_only = dict(named_arrays(trained.parameters()))
    tuned.model.load_weights([(name, a.astype(mx.float32)) for name, a in trained_only.items()], strict=False)
    path = checkpoint.load_best_weights(this.checkpoints, trained)
    if path is None:
        checkpoint.load_weights(path := found[-1], trained)
    return f"the run {this.name} has not finished; this is its checkpoint of step {step_of(path):,}"


def load_with_adapter(reference: str | None, adapter: str, root: Path) -> tuple[Loaded, Tuned]:
    """A model with an adapter on: that of a run, or a directory in mlx-lm's or PEFT's format.

    Without a reference the adapter is a run's, and the base is the run's own.

    Raises:
        UserError: there is no such adapter, or it is for another base.
    """
    own = _run(adapter, root)
    if own is not None and reference is None:
        loaded, tuned = load_finetuned(own)
        if tuned is None:
            raise UserError(f"the run {own.name} has a whole model and no adapter; give it as RUN")
        return loaded, tuned
    folder = own.adapter if own is not None else Path(adapter)
    base = load_base(reference or _latest(root), root)
    if own is not None:
        quantize_base(base.model, own.finetune_recipe())
    tuned = attach(base.model, _read(folder, base.model))
    template = next((t.name for t in TEMPLATES.values() if _template_text(folder) == t.jinja), None)
    return _with(base, tuned, template, folder, ""), tuned


def _latest(root: Path) -> str:
    return str(run.find(None, root).path)


def _run(reference: str, root: Path) -> run.Run | None:
    found = [one for one in (run.Run(Path(reference)), run.Run(root / reference)) if one.is_finetune()]
    return found[0] if found else None


def _read(folder: Path, model: nn.Module) -> Adapter:
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        raise UserError(f"the adapter in {folder} is pickled, and reading that can run any code, so it is refused")
    if (folder / PEFT_WEIGHTS).is_file():
        return import_peft(folder, model)
    if not (folder / CONFIG).is_file():
        raise UserError(f"there is no adapter {folder}: it is no run of `tinytale finetune` and has no {CONFIG}")
    return load_adapter(folder)


def _template_text(folder: Path) -> str | None:
    return read_text(folder / TEMPLATE) if (folder / TEMPLATE).is_file() else None


def _with(loaded: Loaded, tuned: Tuned, template: str | None, path: Path, note: str) -> Loaded:
    loaded.base_path = loaded.path
    loaded.model, loaded.path, loaded.note = tuned.model, path, note or loaded.note
    if template is not None:
        loaded.encode, loaded.can_chat = chat_encoder(loaded.tokenizer, find_template(template)), True
    return loaded


def chat_encoder(tokenizer: Tokenizer, template: Template) -> Any:
    return partial(chat_prompt, tokenizer, template=template)


def longest_example(model: Any, recipe: FinetuneRecipe) -> int:
    """Predictions that an example may have. Raises UserError for more than the model reads."""
    known, asked = context_of(model), recipe.data.context
    if asked is not None and known is not None and asked > known:
        raise UserError(f"data.context {asked:,} is more than the {known:,} tokens that the model reads")
    return asked or min(known or LONGEST, LONGEST)
