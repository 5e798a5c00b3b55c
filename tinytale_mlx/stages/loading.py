"""Models: newly made from a recipe, or read from a run, a model directory or, through mlx-lm, from the hub."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .. import device, run
from ..data.sources import names
from ..errors import UserError
from ..generation.prompts import chat_prompt, continuation_prompt, has_chat_markers, stop_ids
from ..interop.generation_config import read_generation
from ..interop.huggingface import TEMPLATE, from_config, load_model
from ..interop.mlx_lm_models import config_end_ids, download, load_other
from ..models.transformer import Transformer
from ..recipe import GenerateRecipe, Recipe
from ..tokenizers import Tokenizer, load_tokenizer
from ..tokenizers.chat import ChatTemplate, Message, template_from
from ..tokenizers.files import read_config, read_json, read_text
from ..tokenizers.templates import Template
from ..training import checkpoint
from ..tuning.quantized_matmul import use_calibrated_product

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def build_model(recipe: Recipe, tokenizer: Tokenizer) -> Transformer:
    """The recipe's model with freshly drawn weights; its vocabulary is the tokenizer's, or larger on demand."""
    asked = recipe.model.vocab_size
    if asked is not None and asked < tokenizer.vocab_size:
        raise UserError(f"model.vocab_size {asked} is below the {tokenizer.vocab_size} tokens of the tokenizer")
    config = recipe.model.model_copy(update={"vocab_size": asked or tokenizer.vocab_size})
    return Transformer(config, recipe.seed)


def blueprint(recipe: Recipe) -> Transformer:
    """The recipe's model before anything is trained or evaluated: shapes and counts, but no memory used."""
    vocabulary = recipe.model.vocab_size or recipe.tokenizer.vocab_size
    return Transformer(recipe.model.model_copy(update={"vocab_size": vocabulary}), recipe.seed)


@dataclass
class Loaded:
    """A model that is ready to write, and where it came from."""

    model: Any
    """A Transformer, or one of mlx-lm's."""
    tokenizer: Tokenizer
    settings: GenerateRecipe
    can_chat: bool
    """Whether it has read conversations."""
    path: Path
    encode: Callable[[Sequence[Message]], list[int]]
    """Messages to the ids that it continues: in its chat template, or as the one text that they are."""
    stop: set[int]
    """The ids that end a text."""
    note: str = field(default="")
    """What a person should know about where it came from."""
    base_path: Path | None = None
    """Of the model below an adapter."""

    @property
    def template(self) -> ChatTemplate | None:
        """In which it writes conversations; None where no file says so."""
        return getattr(self.encode, "keywords", {}).get("template")


def load(reference: str | None = None, root: Path = run.ROOT) -> Loaded:
    """A model directory, or the model of a run by name or path; without a reference, of the latest run.

    A run that has not finished is read from its best checkpoint, or its newest; `note` says so. What is neither here
    nor a file name, such as "mlx-community/SmolLM2-135M-4bit", is looked for on the Hugging Face hub. Models of an
    architecture that tinytale lacks are run by mlx-lm. Raises UserError where there is nothing to load.
    """
    device.configure()
    if reference is not None and is_model(Path(reference)):
        return _load_directory(Path(reference))
    if reference is not None and _is_hub_name(reference, root):
        return _load_directory(download(reference))
    this = run.find(reference, root)
    if this.has_base():
        from .adapting import load_tuned  # which loads the base with this function

        return load_tuned(this)[0]
    recipe = this.recipe()
    if is_model(this.model):
        return _load_directory(this.model, recipe.generate)
    return _load_checkpoint(this, recipe)


def is_model(path: Path) -> bool:
    return (path / "config.json").is_file()


def _is_hub_name(reference: str, root: Path) -> bool:
    """Whether this is owner/name, and can't be meant for a folder here."""
    return (
        bool(HUB_NAME.fullmatch(reference)) and not Path(reference).parent.exists() and not (root / reference).exists()
    )


def _load_checkpoint(this: run.Run, recipe: Recipe) -> Loaded:
    """The best checkpoint of a run that has not finished; without a validated one, the newest."""
    if not checkpoint.all_checkpoints(this.checkpoints):
        raise UserError(f"the run {this.name} has no checkpoint yet; `{this.resume_command}` goes on with it")
    tokenizer = load_tokenizer(this.tokenizer)
    model = build_model(recipe, tokenizer)
    path = checkpoint.load_best_weights(this.checkpoints, model)
    kind = "best" if path else "newest"
    path = path or _load_newest(this.checkpoints, model)
    chat = can_chat(recipe, tokenizer)
    encode = partial(chat_prompt if chat else continuation_prompt, tokenizer)
    step = int(path.name.removeprefix("step-"))
    note = f"the run {this.name} has not finished; this is its {kind} checkpoint, of step {step:,}"
    return Loaded(model, tokenizer, recipe.generate, chat, path, encode, stop_ids(tokenizer), note)


def _load_newest(folder: Path, model: Transformer) -> Path:
    """Which checkpoint was read. Training goes on and deletes old ones, so one may vanish while it is read."""
    while True:
        path = checkpoint.all_checkpoints(folder)[-1]
        try:
            checkpoint.load_weights(path, model)
        except UserError:
            if path.exists():
                raise
            continue
        return path


def _load_directory(path: Path, settings: GenerateRecipe | None = None) -> Loaded:
    model = load_model(path)[0] if _is_ours(path) else load_other(path)
    use_calibrated_product(model)
    tokenizer = load_tokenizer(path)
    encode = _chat_encoder(path, tokenizer)
    return Loaded(
        model,
        tokenizer,
        read_generation(path) if settings is None else settings,
        encode is not None,
        path,
        encode or partial(continuation_prompt, tokenizer),
        stop_ids(tokenizer) | {token for token in config_end_ids(path) if token < tokenizer.vocab_size},
    )


def _is_ours(path: Path) -> bool:
    """Whether our own architecture can read it, or should say what is wrong with it."""
    raw = read_json(path / "config.json")
    if raw.get("quantization_config") and not raw.get("quantization"):  # by another program; mlx-lm reads some
        return False
    if "tinytale" in raw or not any(path.glob("*.safetensors")):
        return True
    try:
        from_config(raw)
    except UserError:
        return "model_type" not in raw
    return True


def _chat_encoder(path: Path, tokenizer: Tokenizer) -> Callable[[Sequence[Message]], list[int]] | None:
    """How the directory's chat template writes messages; None where it has none, or lacks the markers of ours."""
    file = path / TEMPLATE
    source = read_text(file) if file.is_file() else read_config(path).get("chat_template")
    if not isinstance(source, str):
        return None
    template = template_from(source)
    specials = template.specials if isinstance(template, Template) else []
    known = all(special.name is None or special.name in tokenizer.special_ids for special in specials)
    return partial(chat_prompt, tokenizer, template=template) if known else None


def can_chat(recipe: Recipe, tokenizer: Tokenizer) -> bool:
    """Whether a model trained so has read conversations: the embedded corpus holds some."""
    return "tales" in names(recipe.data.source) and has_chat_markers(tokenizer)
