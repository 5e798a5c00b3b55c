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
from ..recipe import AlignRecipe, FinetuneRecipe
from ..tokenizers import Tokenizer
from ..tokenizers.chat import ChatTemplate, template_from
from ..tokenizers.files import read_text
from ..tokenizers.templates import find_template
from ..training import checkpoint
from ..training.checkpoint_files import step_of
from ..tuning import Adapter, Tuned, attach, fuse, import_peft, load_adapter, new_adapter
from ..tuning.adapter_files import CONFIG
from ..tuning.peft import WEIGHTS as PEFT_WEIGHTS
from ..tuning.quantize import quantize, uniform
from ..tuning.quantized_matmul import use_calibrated_product
from .loading import Loaded, load

Tuning = FinetuneRecipe | AlignRecipe
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
def run_of(reference: str, root: Path) -> run.Run | None:
    """The run of that name or path, if it is one."""
    return next((one for one in (run.Run(root / reference), run.Run(Path(reference))) if one.exists()), None)


def load_base(reference: str, root: Path) -> Loaded:
    """The model that is tuned. Raises UserError where it is only an adapter itself, or there is none."""
    this = run_of(reference, root)
    if this is not None and this.is_adapter():
        raise UserError(
            f"the run {this.name} is an adapter on another model; `tinytale fuse {this.reference}` makes a model of "
            "the two, which can then be tuned again"
        )
    return load(reference, root)


def load_fused(reference: str, root: Path) -> Loaded:
    """The model that is aligned. A run's adapter becomes part of its base, in memory: then it is no more than a model,
    from which another adapter may go on, and which is there again when that is taken off."""
    this = run_of(reference, root)
    if this is None or not this.is_adapter():
        return load_base(reference, root)
    loaded, tuned = load_tuned(this)
    assert tuned is not None
    loaded.model, _ = fuse(tuned, dequantize=True)
    use_calibrated_product(loaded.model)
    return loaded


def quantize_base(model: nn.Module, recipe: Tuning) -> None:
    """Before an adapter is put on, where the recipe asks for it (QLoRA)."""
    if recipe.tune.quantize is not None:
        quantize(model, uniform(model, recipe.tune.quantize))


def tune(loaded: Loaded, recipe: Tuning, keep_base: bool = False) -> Tuned:
    """The base with an untrained adapter of the recipe on. `keep_base`: as `attach` has it."""
    quantize_base(loaded.model, recipe)
    words = None
    if recipe.tune.prompt_text is not None:
        words = loaded.tokenizer.encode(recipe.tune.prompt_text)
    adapter = new_adapter(loaded.model, recipe.tune, key(recipe.seed, "adapter"), words)
    return attach(loaded.model, adapter, keep_base=keep_base)


def load_tuned(this: run.Run) -> tuple[Loaded, Tuned | None]:
    """The model of a run with a base: its model directory, or its base with its adapter on; of one that has not
    finished, from its best checkpoint. Raises UserError for a reward model, which writes nothing."""
    recipe, root = this.tuning_recipe(), this.path.parent
    if this.kind == "reward":
        raise UserError(
            f"the run {this.name} is a reward model: it says how good a text is, and writes none; "
            f"`tinytale rlhf ppo --reward-model {this.reference}` trains a model with it"
        )
    if not this.is_adapter():
        loaded = load(str(this.model))
        loaded.settings = recipe.generate or loaded.settings
        return loaded, None
    loaded = (load_fused if this.is_align() else load_base)(recipe.base, root)
    note = ""
    if this.adapter.is_dir():
        quantize_base(loaded.model, recipe)
        tuned = attach(loaded.model, load_adapter(this.adapter))
    else:
        tuned = tune(loaded, recipe)
        note = _load_checkpoint(this, tuned)
    loaded.settings = recipe.generate or loaded.settings
    template = find_template(recipe.data.template) if recipe.data.template else None
    return _with(loaded, tuned, template, this.adapter if not note else this.path, note), tuned


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
        loaded, tuned = load_tuned(own)
        if tuned is None:
            raise UserError(f"the run {own.name} has a whole model and no adapter; give it as RUN")
        return loaded, tuned
    folder = own.adapter if own is not None else Path(adapter)
    base = load_fused(reference or _latest(root), root)
    if own is not None:
        quantize_base(base.model, own.tuning_recipe())
    tuned = attach(base.model, _read(folder, base.model))
    return _with(base, tuned, _template(folder), folder, ""), tuned


def _latest(root: Path) -> str:
    return str(run.find(None, root).path)


def _run(reference: str, root: Path) -> run.Run | None:
    """The run with a base of that name or path, if there is one."""
    found = [one for one in (run.Run(Path(reference)), run.Run(root / reference)) if one.has_base()]
    return found[0] if found else None


def _read(folder: Path, model: nn.Module) -> Adapter:
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        raise UserError(f"the adapter in {folder} is pickled, and reading that can run any code, so it is refused")
    if (folder / PEFT_WEIGHTS).is_file():
        return import_peft(folder, model)
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"there is no adapter {folder}: it is no run of `tinytale finetune` or `tinytale rlhf` and has no {CONFIG}"
        )
    return load_adapter(folder)


def _template(folder: Path) -> ChatTemplate | None:
    return template_from(read_text(folder / TEMPLATE)) if (folder / TEMPLATE).is_file() else None


def _with(loaded: Loaded, tuned: Tuned, template: ChatTemplate | None, path: Path, note: str) -> Loaded:
    """The base, tuned; it writes conversations as the base did where there is no template."""
    loaded.base_path = loaded.path
    loaded.model, loaded.path, loaded.note = tuned.model, path, note or loaded.note
    if template is not None:
        loaded.encode, loaded.can_chat = chat_encoder(loaded.tokenizer, template), True
    return loaded


def chat_encoder(tokenizer: Tokenizer, template: ChatTemplate) -> Any:
    return partial(chat_prompt, tokenizer, template=template)


def longest_example(model: Any, recipe: FinetuneRecipe) -> int:
    """Predictions that an example may have. Raises UserError for more than the model reads."""
    known, asked = context_of(model), recipe.data.context
    if asked is not None and known is not None and asked > known:
        raise UserError(f"data.context {asked:,} is more than the {known:,} tokens that the model reads")
    return asked or min(known or LONGEST, LONGEST)
