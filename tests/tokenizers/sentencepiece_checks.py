"""Text and checks that the tests of SentencePiece share."""

from pathlib import Path

from tokenizers import Tokenizer as RustTokenizer
from tricky import TRICKY

from tinytale_mlx.data.tales import tales
from tinytale_mlx.tokenizers.sentencepiece import SentencePieceTokenizer

ALGORITHMS = ["unigram", "bpe"]
TALES = list(tales(120))
VERY_TRICKY = [
    *TRICKY,
    "▁", "▁▁ ▁a▁b ▁\n", "▅▁▅", "\0\0a\0", "\t\t\r\n\r", "<0x41>", "<0xE2><0x96><0x81>", "x<0x0A>y <0x",
    "   leading and trailing   ", " " * 1500 + "z", "never" * 700, "日本" * 1200, "the<|eos|the <|eos|>",
    "\ufffe\uffff",
]  # fmt: skip


def rust(directory: Path, *, special: bool = True) -> RustTokenizer:
    tokenizer = RustTokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.encode_special_tokens = not special
    return tokenizer


def check(trained: SentencePieceTokenizer, theirs: dict[bool, RustTokenizer], text: str) -> None:
    for special in (True, False):
        ids = trained.encode(text, special=special)
        assert trained.decode(ids, skip_special=False) == text
        assert theirs[special].encode(text, add_special_tokens=False).ids == ids
