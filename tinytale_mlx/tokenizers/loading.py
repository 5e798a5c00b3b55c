"""Choosing a tokenizer: by what a directory holds, or by what a recipe says."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .base import Tokenizer
from .bpe import ByteBPE
from .bpe_training import Progress, Texts
from .files import read_json
from .longest import LongestMatchTokenizer
from .simple import CharTokenizer, WordTokenizer
from .special import SpecialTokens

if TYPE_CHECKING:  # pydantic takes long to import, and worker processes import this package
    from ..recipe import TokenizerRecipe

_GPT2_END = "<|endoftext|>"


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer in a directory: of a kind of ours if possible, else a wrapped one of Hugging Face's.

    Who wrote the files does not matter. They are a tokenizer.json, or GPT-2's vocab.json and merges.txt.

    Raises:
        UserError: a file, which is named, is missing or damaged.
    """
    directory = Path(directory)
    path = directory / "tokenizer.json"
    if (directory / "sentencepiece.model").exists():
        from .sentencepiece import SentencePieceTokenizer

        if SentencePieceTokenizer.can_read_directory(directory):
            return SentencePieceTokenizer.load(directory)
    if not path.exists():
        if all((directory / name).exists() for name in ("vocab.json", "merges.txt")):
            return _load_gpt2(directory)
        raise UserError(f"there is no tokenizer in {directory}: it holds no tokenizer.json")
    content = read_json(path)
    for ours in (ByteBPE, LongestMatchTokenizer, CharTokenizer, WordTokenizer):
        if ours.can_read(content):
            return ours.load(directory)
    from .huggingface import HuggingFaceTokenizer  # slow to import, and seldom needed

    return HuggingFaceTokenizer.load(directory)


def _load_gpt2(directory: Path) -> ByteBPE:
    vocab, merges = directory / "vocab.json", directory / "merges.txt"
    if _GPT2_END not in read_json(vocab):
        raise UserError(f"{vocab} is not GPT-2's: it holds no {_GPT2_END} token; a tokenizer.json would say what is")
    return ByteBPE.from_gpt2(vocab, merges, [_GPT2_END])


def make_tokenizer(
    recipe: "TokenizerRecipe", texts: Texts, *, workers: int = 1, progress: Progress | None = None
) -> Tokenizer:
    """The tokenizer of a recipe: trained on `texts`, or loaded, without a look at them, from the recipe's `path`.

    Special tokens that a recipe lists for a loaded tokenizer are added to it where it lacks them. Warns, as the
    kinds do, where the texts give fewer tokens than asked for; `workers` read large texts in several processes.

    Raises:
        UserError: what the recipe asks for cannot be had, or its `path` holds no such tokenizer.
    """
    if recipe.path is not None:
        return _load(recipe, Path(recipe.path).expanduser())
    specials = SpecialTokens.of(recipe.special_tokens)
    if recipe.special_tokens is None:
        specials = SpecialTokens.standard(recipe.reserved)
    options: dict[str, Any] = {"special_tokens": specials, "progress": progress}
    size, lowercase = recipe.vocab_size, recipe.lowercase or False
    if recipe.kind == "char":
        return CharTokenizer.train(texts, **options)
    options["workers"] = workers
    if recipe.kind == "sentencepiece":
        from .sentencepiece import SentencePieceTokenizer

        options |= {"algorithm": recipe.algorithm, "normalize": recipe.normalize, "lowercase": lowercase}
        return SentencePieceTokenizer.train(texts, size, **options)
    if recipe.kind == "word":
        options |= {"lowercase": recipe.lowercase is not False, "min_frequency": recipe.min_frequency or 1}
        return WordTokenizer.train(texts, size, **options)
    options |= {"pattern": recipe.pattern, "normalize": recipe.normalize, "lowercase": lowercase}
    options |= {"min_frequency": recipe.min_frequency or 2, "max_token_length": recipe.max_token_length}
    bpe = ByteBPE.train(texts, size, **options)
    return LongestMatchTokenizer.from_bpe(bpe) if recipe.matching == "longest" else bpe


def _load(recipe: "TokenizerRecipe", directory: Path) -> Tokenizer:
    tokenizer = _load_gpt2(directory) if recipe.kind == "gpt2" else load_tokenizer(directory)
    missing = [name for name in recipe.special_tokens or () if name not in tokenizer.special_ids]
    return tokenizer.add_tokens(missing) if missing else tokenizer
