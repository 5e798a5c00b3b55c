"""The tokenizer: which kind, and what it learns."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import PositiveInt, Section

TOKENIZER_KEYS: dict[str, set[str]] = {
    "bpe": {
        "reserved", "pattern", "normalize", "lowercase", "min_frequency", "max_token_length", "matching"
    },
    "sentencepiece": {"reserved", "algorithm", "normalize", "lowercase"},
    "word": {"reserved", "lowercase", "min_frequency"},
    "char": {"reserved"},
    "gpt2": {"path"},
    "directory": {"path"},
}  # fmt: skip
"""Beside those that all kinds have, the keys that mean something to each kind of tokenizer."""


class TokenizerRecipe(Section):
    kind: Literal["bpe", "sentencepiece", "word", "char", "gpt2", "directory"] = "bpe"
    """Byte-level BPE of our own, Google's SentencePiece, whole words, characters, GPT-2's from its two files, or
    any saved tokenizer."""
    vocab_size: PositiveInt = 4096
    """Special tokens included. A character tokenizer has as many as the text holds."""
    path: str | None = None
    """For `directory`: a folder with a saved tokenizer. For `gpt2`: one with vocab.json and merges.txt."""
    special_tokens: list[str] | None = None
    """Instead of the standard ones (pad, unk, bos, eos, the chat markers and the reserved ones)."""
    reserved: Annotated[int, Field(ge=0)] = 2
    """Spare special tokens among the standard ones, to be given a meaning later."""
    pattern: Literal["gpt2", "gpt4"] = "gpt2"
    """How text is cut into words, inside which BPE may merge."""
    normalize: Literal["NFC", "NFKC"] | None = None
    lowercase: bool | None = None
    """Left out: the word tokenizer lower-cases, the others do not."""
    min_frequency: PositiveInt | None = None
    """How often a pair (or word) must occur to become a token; left out, 2 for BPE and 1 for words."""
    max_token_length: PositiveInt | None = None
    """In bytes."""
    matching: Literal["merges", "longest"] = "merges"
    """How the vocabulary of BPE is used: by its merges, or always the longest token that fits (not BPE any more)."""
    algorithm: Literal["unigram", "bpe"] = "unigram"
    """Of SentencePiece."""

    @model_validator(mode="after")
    def _keys_belong_to_the_kind(self) -> "TokenizerRecipe":
        if (self.path is None) == ("path" in TOKENIZER_KEYS[self.kind]):
            raise ValueError("tokenizer.path goes with tokenizer.kind directory or gpt2, and only with them")
        for key in set().union(*TOKENIZER_KEYS.values()) - TOKENIZER_KEYS[self.kind]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"tokenizer.{key} means nothing to a tokenizer of the kind {self.kind}")
        if self.special_tokens is not None and self.reserved != 2:
            raise ValueError(
                "tokenizer.reserved adds to the standard special tokens, and tokenizer.special_tokens "
                "replaces them; give one of the two"
            )
        return self
