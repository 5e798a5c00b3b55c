"""Choosing a tokenizer: by what a directory holds, or by the name a recipe gives."""

from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from .base import Tokenizer
from .bpe import ByteBPE
from .bpe_training import Texts
from .files import read_json
from .simple import CharTokenizer, WordTokenizer

Kind = Literal["bpe", "char", "word"]


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer in a directory with a tokenizer.json: of a kind of ours if possible, else a wrapped one.

    Who wrote the file does not matter. ValueError, naming the file, if it is missing or damaged.
    """
    path = Path(directory) / "tokenizer.json"
    if not path.exists():
        raise UserError(f"there is no tokenizer in {directory}: it holds no tokenizer.json")
    content = read_json(path)
    for ours in (ByteBPE, CharTokenizer, WordTokenizer):
        if ours.can_read(content):
            return ours.load(directory)
    from .huggingface import HuggingFaceTokenizer  # slow to import, and seldom needed

    return HuggingFaceTokenizer.load(directory)


def train_tokenizer(kind: Kind, texts_or_paths: Texts, vocab_size: int, **options: Any) -> Tokenizer:
    """Train a tokenizer of this kind; `options` are those of its `train`.

    A character tokenizer takes no notice of `vocab_size`: it has as many tokens as the texts have characters.
    """
    if kind == "bpe":
        return ByteBPE.train(texts_or_paths, vocab_size, **options)
    if kind == "word":
        return WordTokenizer.train(texts_or_paths, vocab_size, **options)
    if kind == "char":
        return CharTokenizer.train(texts_or_paths, **options)
    raise UserError(f"unknown kind of tokenizer {kind!r}; there are bpe, char and word")
