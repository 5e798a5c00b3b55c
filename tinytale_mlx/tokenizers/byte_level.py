"""Bytes as printable characters, the way GPT-2 (Radford et al. 2019) files its vocabulary.

A printable Latin-1 byte is written as itself, the other 68 as the characters from U+0100 on: a space is "Ġ",
a newline "Ċ".
"""

from collections.abc import Collection, Sequence

from ..errors import UserError
from .files import Json, split_json
from .splitting import STANDARD_PATTERNS, TextRules

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_WRITTEN = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(_OTHERS)}
_BYTES = {character: byte for byte, character in _WRITTEN.items()}


def to_written(name: bytes) -> str:
    """The printable form of a token's bytes, one character per byte."""
    return "".join(_WRITTEN[byte] for byte in name)


def from_written(name: str, special_names: Collection[str] = ()) -> bytes:
    """The bytes of a token from its printable form; a special token is written as it is."""
    if name in special_names:
        return name.encode()
    try:
        return bytes(_BYTES[character] for character in name)
    except KeyError:
        raise UserError(f"{name!r} is not a byte-level token") from None


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
