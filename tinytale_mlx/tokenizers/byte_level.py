"""Tokenizers over bytes: what byte-level BPE and longest match have in common, and how their files spell bytes.

Each byte is a token, so no text is unknown. In files bytes are printable characters, the way GPT-2 (Radford et al.
2019) files its vocabulary: a printable Latin-1 byte is written as itself, the other 68 as the characters from U+0100
on: a space is "Ġ", a newline "Ċ".
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import Any

from ..errors import UserError
from .base import ListedTokenizer, check_contiguous, numbers_of
from .files import Json, special_ids_from, split_json
from .special import SpecialTokens
from .splitting import STANDARD_PATTERNS, TextRules, regroup

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
# Tables for str.translate, which is quick; bytes pass through it as Latin-1, one character each.
_WRITTEN = {byte: byte for byte in _PRINTABLE} | {byte: 256 + i for i, byte in enumerate(_OTHERS)}
_BYTES = dict.fromkeys(range(256), 0xFFFF) | {written: byte for byte, written in _WRITTEN.items()}


def to_written(name: bytes) -> str:
    """The printable form of a token's bytes, one character per byte."""
    return name.decode("latin-1").translate(_WRITTEN)


def from_written(name: str, special_names: Collection[str] = ()) -> bytes:
    """The bytes of a token from its printable form; a special token is written as it is."""
    if name in special_names:
        return name.encode()
    try:
        return name.translate(_BYTES).encode("latin-1")
    except UnicodeEncodeError:
        raise UserError(f"{name!r} is not a byte-level token") from None


def is_written(name: str) -> bool:
    """Whether some bytes have this printable form."""
    return set(map(ord, name)) <= set(_WRITTEN.values())


def merge_from_json(merge: str | Sequence[str]) -> tuple[bytes, bytes]:
    """A merge is filed as a pair, in older files as one string with a space between its parts."""
    parts = merge.rstrip("\r").split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise UserError(f"{merge!r} is not a merge of two tokens")
    return from_written(parts[0]), from_written(parts[1])


def byte_level_json(*, use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def pre_tokenizer_json(rules: TextRules) -> Json:
    """GPT-2's split is built into `tokenizers`; another pattern is named in full."""
    if rules.pattern == "gpt2":
        return byte_level_json(use_regex=True)
    split = split_json(STANDARD_PATTERNS[rules.pattern])
    return {"type": "Sequence", "pretokenizers": [split, byte_level_json(use_regex=False)]}


def vocab_from_json(content: Json) -> dict[int, bytes]:
    """Id to bytes (a special token: to its name), from a tokenizer.json."""
    special_ids, written = special_ids_from(content), content["model"]["vocab"]
    vocab = {token: from_written(name, special_ids) for name, token in written.items()}
    return vocab | {token: name.encode() for name, token in special_ids.items()}


class ByteLevelTokenizer(ListedTokenizer):
    """Text is cut into words (`splitting.py`), and a word's bytes into tokens, once for each distinct word.

    `vocab` maps each id to the bytes it writes (a special token: to its name). A subclass says in `_encode_word`
    which tokens make up a word.
    """

    vocab: dict[int, bytes]

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        special_tokens: SpecialTokens | Sequence[str],
        rules: TextRules | None,
        cache_size: int,
    ) -> None:
        """As the subclasses. Raises UserError if a byte has no token, two tokens are equal, or ids have gaps."""
        specials = SpecialTokens.of(special_tokens)
        ids = numbers_of(vocab)
        for name in specials.names:
            ids.setdefault(name.encode(), len(ids))
        check_contiguous(list(ids.values()))
        self.vocab = {token: name for name, token in sorted(ids.items(), key=lambda item: item[1])}
        self.rules = rules or TextRules()
        super().__init__(specials, {name: ids.pop(name.encode()) for name in specials.names})
        self._ids = ids  # of the tokens that are not special
        self._written = {i: b"" if i in self._special_names else name for i, name in self.vocab.items()}
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            raise UserError(f"the vocabulary has no token for {len(missing)} bytes, such as {missing[0]:#04x}")
        self.cache_size = cache_size

    @property
    def cache_size(self) -> int:
        """How many words are remembered with their ids. By default 32,768, which take less than 6 MB; 0 is none."""
        return self._words.limit

    @cache_size.setter
    def cache_size(self, words: int) -> None:
        if words < 0:
            raise UserError(f"cache_size must not be negative, and it is {words}")
        self._words = WordCache(self._encode_word, words)

    # ------------------------------------------------------------------ text to ids and back
    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in regroup((text,)):
            ids += chain.from_iterable(map(self._words.__getitem__, self.rules.words(piece)))
        return ids

    @abstractmethod
    def _encode_word(self, word: str) -> tuple[int, ...]:
        """The ids of one word."""

    # ------------------------------------------------------------------ files
    def _vocab_json(self) -> dict[str, int]:
        written = {self._special_names.get(i) or to_written(name): i for i, name in self.vocab.items()}
        if len(written) < len(self.vocab):
            raise UserError("a special token is written like an ordinary one; give it another name")
        return written


class WordCache(dict[str, tuple[int, ...]]):
    """Word to ids, worked out once. Emptied when full, since some text never repeats."""

    def __init__(self, encode_word: Callable[[str], tuple[int, ...]], limit: int) -> None:
        super().__init__()
        self.limit, self._encode_word = limit, encode_word

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._encode_word(word)
        if len(word) <= 40 and self.limit:
            if len(self) >= self.limit:
                self.clear()
            self[word] = ids
        return ids

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._encode_word, self.limit)  # to another process it goes empty
