"""Tokenizers sent to another process, as `workers` sends them, and what that process says of them."""

from collections.abc import Mapping, Sequence, Sized
from typing import NamedTuple

from tinytale_mlx.tokenizers import SpecialTokens, Tokenizer
from tinytale_mlx.workers import map_ordered


class Arrived(NamedTuple):
    """A tokenizer as the other process found it, and the ids that it gave there."""

    sizes: dict[str, int]
    type: type[Tokenizer]
    fingerprint: str
    special_ids: Mapping[str, int]
    specials: SpecialTokens
    begins_with_bos: bool
    ids: list[list[int]]


def sizes(tokenizer: Tokenizer) -> dict[str, int]:
    """How many things each attribute holds; `_words` are those that are remembered with their ids."""
    return {name: len(value) for name, value in vars(tokenizer).items() if isinstance(value, Sized)}


def send(tokenizers: Mapping[str, Tokenizer], texts: Sequence[str]) -> dict[str, Arrived]:
    """All in one go, since a process takes a second to start."""
    (arrived,) = map_ordered(_arrived, tokenizers, [texts], workers=2)
    return arrived


def _arrived(tokenizers: Mapping[str, Tokenizer], texts: Sequence[str]) -> dict[str, Arrived]:
    return {name: _look(tokenizer, texts) for name, tokenizer in tokenizers.items()}


def _look(one: Tokenizer, texts: Sequence[str]) -> Arrived:
    found = sizes(one)  # before anything is worked out here
    ids = one.encode_batch(texts)
    return Arrived(found, type(one), one.fingerprint, one.special_ids, one.specials, one.begins_with_bos, ids)
