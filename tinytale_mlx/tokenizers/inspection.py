"""What a tokenizer makes of text: the pieces one by one, and figures over all of it.

The figure that counts is bytes per token: more of them, and the same text is a shorter sequence, which a model reads
faster and further back. It compares across tokenizers, where tokens per word or losses do not.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .base import Tokenizer

_MARKS = {" ": "·", "\n": "↵", "\t": "→"}
# Controls, invisible joints and marks of direction, private, unassigned; line, paragraph and other separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


@dataclass(frozen=True)
class Piece:
    """A token where it stands in a text."""

    id: int
    text: str
    r"""What it writes; bytes that are no whole character as \xNN; a special token by its name."""
    special: bool

    @property
    def shown(self) -> str:
        """The text with nothing invisible in it: `·` is a space, `↵` a line end, `→` a tab."""
        return visible(self.text)


def visible(text: str) -> str:
    r"""The text for eyes: what could not be seen, or could steer a terminal, becomes a mark or its code, \uNNNN."""
    return "".join(_MARKS.get(c) or (f"\\u{ord(c):04x}" if unicodedata.category(c) in _UNSEEN else c) for c in text)


def piece(tokenizer: Tokenizer, token_id: int) -> Piece:
    """The token of that id. ValueError if there is none."""
    written = tokenizer.token_bytes(token_id).decode("utf-8", errors="backslashreplace")
    name = next((name for name, number in tokenizer.special_ids.items() if number == token_id), None)
    return Piece(token_id, written if name is None else name, name is not None)


def pieces(tokenizer: Tokenizer, text: str, *, special: bool = True) -> list[Piece]:
    """The tokens of `text`, in order; with `special`, special tokens written in it count as such."""
    ids = tokenizer.encode(text, special=special)
    known = {token_id: piece(tokenizer, token_id) for token_id in set(ids)}
    return [known[token_id] for token_id in ids]


def longest_tokens(tokenizer: Tokenizer, count: int = 10) -> list[str]:
    """The tokens that write the most bytes, longest first; of equals, the ones with the lower id."""
    sizes = {token_id: len(tokenizer.token_bytes(token_id)) for token_id in range(tokenizer.vocab_size)}
    longest = sorted(sizes, key=lambda token_id: (-sizes[token_id], token_id))[:count]
    return [piece(tokenizer, token_id).text for token_id in longest if sizes[token_id]]


def statistics(tokenizer: Tokenizer, texts: Iterable[str], *, special: bool = False) -> dict[str, Any]:
    """Figures over all texts, each encoded on its own; as in training, special tokens in it are plain text.

    `tokens`, `bytes` (UTF-8) and `characters` are sums, `bytes_per_token` is their quotient (None without a token);
    `used_share` says how much of the vocabulary, special tokens aside, occurs at all; `unknown` counts unk tokens.
    """
    counts: Counter[int] = Counter()
    size = characters = 0
    for text in texts:
        counts.update(tokenizer.encode(text, special=special))
        size += len(text.encode())
        characters += len(text)
    tokens = counts.total()
    unknown = 0 if tokenizer.unk_id is None else counts[tokenizer.unk_id]
    ordinary = tokenizer.vocab_size - len(tokenizer.special_ids)
    used = len(counts.keys() - tokenizer.special_ids.values())
    return {
        "tokens": tokens,
        "bytes": size,
        "characters": characters,
        "bytes_per_token": size / tokens if tokens else None,
        "used": used,
        "used_share": used / ordinary if ordinary else None,
        "unknown": unknown,
        "unknown_share": unknown / tokens if tokens else None,
    }
