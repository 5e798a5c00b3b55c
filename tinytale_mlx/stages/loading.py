"""Models: newly made from a recipe, or read from a run or a model directory."""

from dataclasses import dataclass
from pathlib import Path

from .. import device, run
from ..data.sources import names
from ..errors import UserError
from ..generation.prompts import has_chat_markers
from ..interop.huggingface import load_model
from ..models.transformer import Transformer
from ..recipe import GenerateRecipe, Recipe
from ..tokenizers import Tokenizer, load_tokenizer
from ..training import checkpoint


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
    if reference is not None and is_model(Path(reference)):
        return _load_directory(Path(reference), GenerateRecipe())
    this = run.find(reference, root)
    recipe = this.recipe()
    if is_model(this.model):
        return _load_directory(this.model, recipe.generate)
    saved = checkpoint.all_checkpoints(this.checkpoints)
    if not saved:
        raise UserError(f"the run {this.name} has no checkpoint yet; `{this.resume_command}` goes on with it")
    tokenizer = load_tokenizer(this.tokenizer)
    model = build_model(recipe, tokenizer)
    checkpoint.load_weights(saved[-1], model)
    return Loaded(model, tokenizer, recipe.generate, can_chat(recipe, tokenizer), saved[-1])


def is_model(path: Path) -> bool:
    return (path / "config.json").is_file()


def _load_directory(path: Path, settings: GenerateRecipe) -> Loaded:
    model, _ = load_model(path)
    tokenizer = load_tokenizer(path)
    template = (path / "chat_template.jinja").is_file()
    return Loaded(model, tokenizer, settings, template and has_chat_markers(tokenizer), path)


def can_chat(recipe: Recipe, tokenizer: Tokenizer) -> bool:
    """Whether a model trained so has read conversations: the embedded corpus holds some."""
    return "tales" in names(recipe.data.source) and has_chat_markers(tokenizer)
