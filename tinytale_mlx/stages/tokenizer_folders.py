"""Tokenizers in folders: trained into one, found by name, and given more tokens together with their model."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import disk, recipe_files, run
from ..data import sources
from ..errors import UserError
from ..interop.huggingface import save_model
from ..models.parameters import count_parameters
from ..models.vocabulary import resize_vocabulary
from ..randomness import key
from ..recipe import Recipe
from ..tokenizers import Tokenizer, load_tokenizer
from ..tokenizers.files import read_json, write_json
from .loading import load
from .tokenizing import LOADED, Notify, find_or_train, kept_at, load_kept, made_from, tokenizer_event

ABOUT = "tinytale.json"
"""Beside a tokenizer that `train_tokenizer` wrote: what it was trained on."""
TOKENIZER_FILES = ("tokenizer.json", "sentencepiece.model", "vocab.json")
"""A folder with one of them holds a tokenizer; the last is GPT-2's."""


# ---------------------------------------------------------------------- in a folder of one's own
@dataclass
class TokenizerResult:
    tokenizer: Tokenizer
    directory: Path
    seconds: float | None
    """None where the tokenizer was there already."""
    figures: dict[str, Any]
    """Those of `tokenizer_event`."""

    def to_json(self) -> dict[str, Any]:
        """What `tinytale tokenizer train --json` prints."""
        figures = {name: value for name, value in self.figures.items() if name != "event"}
        return {"tokenizer": str(self.directory), "reused": self.seconds is None, "seconds": self.seconds, **figures}


def train_tokenizer(
    recipe: Recipe,
    output: Path | None = None,
    root: Path = run.ROOT,
    notify: Notify = lambda event: None,
    retrain: bool = False,
    workers: int | None = None,
) -> TokenizerResult:
    """The tokenizer of `tokenizer_for` in a folder, by default tokenizers/TEXT-KIND-SIZE, that recipes can name.

    A folder that this function made stays as it is if text and settings are the same; else `retrain` replaces it.

    Raises:
        UserError: the folder holds another tokenizer, or a model; or as `tokenizer_for`.
    """
    if recipe.tokenizer.kind in LOADED:
        raise UserError(f"a tokenizer of the kind {recipe.tokenizer.kind} is there already; train another kind")
    output = output or Path("tokenizers") / _title(recipe)
    name = made_from(recipe)
    tokenizer, seconds = None if retrain else _unchanged(output, name), None
    if tokenizer is None:
        _check_replaceable(output, retrain)
        tokenizer, seconds = find_or_train(recipe, root, notify, retrain, workers)
        with disk.writing("the tokenizer", output):
            tokenizer.save(output)
            about = {"made_from": name, "fingerprint": tokenizer.fingerprint}
            write_json(output / ABOUT, about | recipe.model_dump(mode="json", include={"data", "tokenizer", "seed"}))
    return TokenizerResult(tokenizer, output, seconds, tokenizer_event(tokenizer, recipe))


def _title(recipe: Recipe) -> str:
    """What a tokenizer is called by default, such as book-bpe-4096."""
    (first, *others), wanted = sources.names(recipe.data.source), recipe.tokenizer
    text = recipe.name if others or first == "-" else Path(first.split(":")[0]).name.split(".")[0]
    name = re.sub(r"[^\w.-]+", "-", text).strip("-.") or recipe.name
    return f"{name}-{wanted.kind}" + ("" if wanted.kind == "char" else f"-{wanted.vocab_size}")


def _unchanged(directory: Path, made_from: str) -> Tokenizer | None:
    """The tokenizer in a folder if `train_tokenizer` would write the same one there."""
    with suppress(UserError):
        about, tokenizer = read_json(directory / ABOUT), load_tokenizer(directory)
        if (made_from, tokenizer.fingerprint) == (about.get("made_from"), about.get("fingerprint")):
            return tokenizer
    return None


def _check_replaceable(directory: Path, retrain: bool) -> None:
    """Only what `train_tokenizer` made is replaced: models and runs depend on their tokenizer."""
    if not _holds_tokenizer(directory):
        return
    if not (directory / ABOUT).is_file():
        raise UserError(f"{directory} holds a tokenizer that this command did not make; choose another --output")
    if not retrain:
        raise UserError(
            f"{directory} holds a tokenizer trained on another text or with other settings; --retrain replaces it, "
            "--output puts the new one elsewhere"
        )


# ---------------------------------------------------------------------- found by name
def find_tokenizer(what: str | None = None, root: Path = run.ROOT) -> tuple[Tokenizer, Path]:
    """The tokenizer of that name and where it lies: a tokenizer or model directory, a run, or a recipe for which one
    was trained; without a name, the latest run's.

    Raises:
        UserError: nothing of that name has a tokenizer, or it is damaged.
    """
    if what is not None and _holds_tokenizer(Path(what)):
        return load_tokenizer(what), Path(what)
    if what is not None and not _is_run(what, root):
        return _of_recipe(what, root)
    this = run.find(what, root)
    return load_tokenizer(this.tokenizer), this.path


def _holds_tokenizer(directory: Path) -> bool:
    return any((directory / name).is_file() for name in TOKENIZER_FILES)


def _is_run(what: str, root: Path) -> bool:
    return run.Run(Path(what)).exists() or run.Run(root / what).exists()


def _of_recipe(what: str, root: Path) -> tuple[Tokenizer, Path]:
    if what not in recipe_files.names() and not what.endswith((".yaml", ".yml")):
        raise UserError(
            f"there is no tokenizer {what}: it is no folder with a tokenizer, no run in {root}/, and no recipe"
        )
    recipe = recipe_files.load(what)
    if tokenizer := load_kept(kept_at(recipe, root)):
        return tokenizer, Path(what)
    raise UserError(f"the tokenizer of {what} has not been trained; `tinytale tokenizer train {what}` does it")


# ---------------------------------------------------------------------- more tokens
def add_tokens(reference: str | None, names: list[str], output: Path, root: Path = run.ROOT) -> dict[str, Any]:
    """Write a model directory: a run's model, or a directory's, whose tokenizer knows further special tokens.

    Old ids and the logits of old tokens stay. Returns what `tinytale tokenizer add --json` prints.

    Raises:
        UserError: no such model; a token that is there already; `output` is not new.
    """
    if output.exists():
        raise UserError(f"{output} exists; choose another --output")
    loaded = load(reference, root)
    old, tokenizer = loaded.tokenizer, loaded.tokenizer.add_tokens(names)
    rows = max(loaded.model.config.vocab_size or 0, tokenizer.vocab_size)
    model = resize_vocabulary(loaded.model, rows, key(0, "add tokens", *names), used=old.vocab_size)
    save_model(output, model, tokenizer, loaded.settings, chat_template=loaded.can_chat)
    return {
        "model": str(output),
        "vocab_size": tokenizer.vocab_size,
        "tokens": {name: tokenizer.special_ids[name] for name in names},
        "parameters": count_parameters(model),
    }
