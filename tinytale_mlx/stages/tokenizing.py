"""The tokenizer of a recipe: trained once, kept, and used again for the same text and settings."""

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import disk, run
from ..data import sources
from ..data.clean import Cleaner
from ..errors import UserError
from ..recipe import DataRecipe, Recipe, TokenizerRecipe
from ..tokenizers import Tokenizer, load_tokenizer, make_tokenizer
from ..tokenizers.inspection import pieces, statistics
from ..workers import cores

FORMAT = 1  # raise it when the same texts and settings come to give another tokenizer
LOADED = ("directory", "gpt2")
"""Kinds of tokenizer that are there already; all others are trained."""
DECIDES_TEXT = {"clean", "skip_bad", "invalid_utf8", "store"}
"""Settings of the data that change its text, beside those of each source."""
LARGE = 50e6  # bytes of text from which on several processes read it sooner than one: each takes a second to start
ENOUGH = 200_000_000  # characters that a tokenizer learns from where nobody knows how many there are
SAMPLE = 100_000  # characters of the text on which a tokenizer is described
Notify = Callable[[dict[str, Any]], None]
"""Gets every event of a stage. What log.jsonl gets, and as the work goes on {"event": "phase", "text": ...},
{"event": "progress", "text": ...}, {"event": "warning", "text": ...} and {"event": "saved", "step": ...}.
"""


# ---------------------------------------------------------------------- trained once, then used again
def tokenizer_for(
    recipe: Recipe,
    root: Path = run.ROOT,
    notify: Notify = lambda event: None,
    retrain: bool = False,
    workers: int | None = None,
) -> Tokenizer:
    """The recipe's tokenizer: loaded, or trained before on the same text with the same settings, or trained now.

    Trained ones are kept in `root`/.cache/tokenizers, each in a folder named by what it was made from; `retrain`
    makes it anew. Without a number of `workers`, large files are read by as many processes as there are cores.

    Raises:
        UserError: whatever the sources, the tokenizer's settings or the disk object to.
    """
    return find_or_train(recipe, root, notify, retrain, workers)[0]


def find_or_train(
    recipe: Recipe, root: Path, notify: Notify, retrain: bool, workers: int | None
) -> tuple[Tokenizer, float | None]:
    """The tokenizer, and the seconds that its training took; None where it was there already."""
    if recipe.tokenizer.kind in LOADED:
        return make_tokenizer(recipe.tokenizer, ()), None
    kept = kept_at(recipe, root)
    if not retrain and (tokenizer := load_kept(kept)):
        notify({"event": "phase", "text": f"using the tokenizer trained before ({_describe(recipe.tokenizer)})"})
        return tokenizer, None
    started = time.perf_counter()
    if workers is None:
        workers = cores() if (sources.size(recipe.data) or 0) > LARGE else 1
    tokenizer = _train(recipe, notify, workers)
    seconds = time.perf_counter() - started
    _keep(tokenizer, kept)
    return tokenizer, seconds


def kept_at(recipe: Recipe, root: Path) -> Path:
    """The folder in which the recipe's tokenizer is kept once it is trained."""
    return root / ".cache" / "tokenizers" / made_from(recipe)


def made_from(recipe: Recipe) -> str:
    """A hash of all that decides what a tokenizer becomes: its settings and the text, see `sources.identity`."""
    parts: list[Any] = [FORMAT, recipe.tokenizer.model_dump(), recipe.data.model_dump(include=DECIDES_TEXT)]
    for part in sources.parts(recipe.data):
        text = sources.identity(part.data.source, recipe.seed)
        parts.append([part.data.field, part.data.documents, text])
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def load_kept(kept: Path) -> Tokenizer | None:
    """The tokenizer there; None if there is none or it is damaged, and then it is trained again."""
    with suppress(UserError):
        return load_tokenizer(kept)
    return None


def _keep(tokenizer: Tokenizer, kept: Path) -> None:
    """Put a folder in place, whole. Where two processes do it at once the last one wins, and both had the same."""
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
    with disk.writing("the tokenizer", kept):
        try:
            tokenizer.save(temporary)
            disk.flush_folder(temporary)
            disk.replace_folder(temporary, kept)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _train(recipe: Recipe, notify: Notify, workers: int) -> Tokenizer:
    def report(stage: str, done: int, total: int) -> None:
        text = f"{stage} {done:,} of {total:,}" if total else f"{stage} {done / 1e6:,.0f} MB"
        notify({"event": "progress", "text": text})

    wanted = recipe.tokenizer
    notify({"event": "phase", "text": f"training the tokenizer ({_describe(wanted)})"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tokenizer = make_tokenizer(wanted, _training_texts(recipe), workers=workers, progress=report)
    for warning in caught:
        notify({"event": "warning", "text": str(warning.message)})
    return tokenizer


def _describe(wanted: TokenizerRecipe) -> str:
    return {
        "bpe": f"byte-level BPE, {wanted.vocab_size:,} tokens",
        "sentencepiece": f"SentencePiece {wanted.algorithm}, {wanted.vocab_size:,} tokens",
        "word": f"{wanted.vocab_size:,} words",
    }.get(wanted.kind, "characters")


def _training_texts(recipe: Recipe) -> Iterator[str]:
    """All texts; of a data set of the hub, or one that is not to be stored, the beginning, which has no known end."""
    texts = texts_of(recipe.data, recipe.seed)
    local = all(isinstance(place, Path) or place in ("tales", "-") for place in sources.resolve(recipe.data.source))
    return texts if local and recipe.data.store else _beginning(texts, ENOUGH)


def texts_of(data: DataRecipe, seed: int) -> Iterator[str]:
    """The text of all documents, cleaned, a conversation message by message."""
    for document in filter(None, map(Cleaner(data.clean), sources.documents(data, seed))):
        if isinstance(document, str):
            yield document
        else:
            yield from (message["content"] for message in document)


# ---------------------------------------------------------------------- described on its text
def tokenizer_event(tokenizer: Tokenizer, recipe: Recipe) -> dict[str, Any]:
    """{"event": "tokenizer", ...}: how well it compresses the beginning of the recipe's text, and how it cuts it."""
    texts = list(_beginning(texts_of(recipe.data, recipe.seed)))
    sentence = first_sentence(next(iter(texts), ""))
    return {
        "event": "tokenizer",
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": statistics(tokenizer, texts)["bytes_per_token"],
        "sample": [piece.text for piece in pieces(tokenizer, sentence, special=False)],
    }


def _beginning(texts: Iterable[str], characters: int = SAMPLE) -> Iterator[str]:
    for text in texts:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return


def first_sentence(text: str, characters: int = 100) -> str:
    """What a text begins with, up to the last sentence, or else word, that ends within so many characters."""
    head = text.lstrip()[:characters]
    end = max(head.rfind(mark) for mark in ".!?") + 1
    return head[: end or max(head.rfind(" "), 0) or None]
