"""Tokenizers: train, encode, decode, save and load, all behind one interface (`base.Tokenizer`)."""

from .base import StreamDecoder, Tokenizer
from .bpe import ByteBPE
from .loading import load_tokenizer, make_tokenizer
from .longest import LongestMatchTokenizer
from .padding import PaddedBatch, pad_batch
from .simple import CharTokenizer, WordTokenizer
from .special import SpecialTokens

__all__ = [
    "ByteBPE",
    "CharTokenizer",
    "LongestMatchTokenizer",
    "PaddedBatch",
    "SpecialTokens",
    "StreamDecoder",
    "Tokenizer",
    "WordTokenizer",
    "load_tokenizer",
    "make_tokenizer",
    "pad_batch",
]
