"""Tokenizers: train, encode, decode, save and load, all behind one interface (`base.Tokenizer`)."""

from .base import StreamDecoder, Tokenizer
from .bpe import ByteBPE
from .loading import load_tokenizer, train_tokenizer
from .simple import CharTokenizer, WordTokenizer
from .special import SpecialTokens

__all__ = [
    "ByteBPE",
    "CharTokenizer",
    "SpecialTokens",
    "StreamDecoder",
    "Tokenizer",
    "WordTokenizer",
    "load_tokenizer",
    "train_tokenizer",
]
