"""Documents to tokens, a megabyte at a time: cleaned, encoded, and each with its side of the split.

This is the part of preparation that looks at few documents at once, so worker processes can do it. What needs all
of them, in order (duplicates, counts), is done by `Cleaner.keep` with what comes out here.
"""

from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from ..recipe import CleanRecipe
from ..tokenizers.base import Tokenizer
from ..tokenizers.chat import encode_chat
from ..workers import map_ordered
from .clean import Cleaned, Cleaner, clean_document
from .files import Document
from .shards import token_type
from .split import Side, split, split_text

BATCH_CHARACTERS = 1 << 20  # encoded at a time

Item = tuple[Document, Side | None]
"""A document, and its side where that does not come from a hash of its text."""


class Encoder(NamedTuple):
    """What worker processes have to know."""

    tokenizer: Tokenizer
    clean: CleanRecipe = CleanRecipe()
    fraction: float = 0.0
    """Of the documents, for validation."""


class Encoded(NamedTuple):
    """Some documents, one after the other."""

    tokens: np.ndarray
    """uint16 or uint32 [N], see `shards.token_type`."""
    lengths: np.ndarray
    """int64 [documents], in tokens; 0 for one that cleaning leaves out."""
    sizes: np.ndarray
    """int64 [documents]: UTF-8 bytes of their text; of a conversation, of the contents of its messages."""
    held_out: np.ndarray
    """bool [documents]: whether it is for validation."""
    cleaned: list[Cleaned]
    """What cleaning did, for `Cleaner.keep`; empty where it is switched off."""

    def part(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Tokens, lengths and bytes of the chosen documents, bool [documents]: what `ShardWriter.add` takes."""
        if chosen.all():
            return self.tokens, self.lengths, int(self.sizes.sum())
        return self.tokens[np.repeat(chosen, self.lengths)], self.lengths[chosen], int(self.sizes[chosen].sum())


def encode_all(encoder: Encoder, items: Iterable[Item], workers: int = 1) -> Iterator[Encoded]:
    """All documents in order, about a megabyte of text at a time, in bounded memory."""
    return map_ordered(encode_some, encoder, _batches(items), workers)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item[0]) if isinstance(item[0], str) else sum(len(message["content"]) for message in item[0])
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode_some(encoder: Encoder, items: list[Item]) -> Encoded:
    """Clean, split and encode these documents, each as [BOS] + tokens + [EOS]: the two where the tokenizer uses them.

    Where they are one token, as in GPT-2, it stands at the end only: it begins the next one, too. A marker
    spelled out in a document is text like any other; only `encode_chat` writes the chat's own markers.
    """
    tokenizer, recipe, fraction = encoder
    begin, end = ([] if token is None else [token] for token in (tokenizer.bos_id, tokenizer.eos_id))
    if begin == end or not tokenizer.begins_with_bos:
        begin = []
    tokens: list[int] = []
    lengths, sizes, held_out, cleaned = array("q"), array("q"), bytearray(), []
    cleaning = recipe != _AS_IT_IS
    for document, side in items:
        before = len(tokens)
        dropped = False
        if cleaning:
            result = clean_document(recipe, document)
            document, dropped = result.document, result.reason is not None
            cleaned.append(result._replace(document=""))
        if not dropped:
            tokens += begin
            tokens += _ids(tokenizer, document)
            tokens += end
        lengths.append(len(tokens) - before)
        sizes.append(size_of(document))
        held_out.append((side or split(document, fraction)) == "validation")
    return Encoded(
        np.frombuffer(array("I", tokens), np.uint32).astype(token_type(tokenizer)),  # half as much between processes
        np.frombuffer(lengths, np.int64),
        np.frombuffer(sizes, np.int64),
        np.frombuffer(held_out, np.bool_),
        cleaned,
    )


_AS_IT_IS = CleanRecipe()


def _ids(tokenizer: Tokenizer, document: Document) -> list[int]:
    if isinstance(document, str):
        return tokenizer.encode(document, special=False)
    return encode_chat(tokenizer, document)


def size_of(document: Document) -> int:
    """UTF-8 bytes of a document's text; of a conversation, of the contents of its messages."""
    if isinstance(document, str):
        return len(document) if document.isascii() else len(document.encode())
    return sum(size_of(message["content"]) for message in document)


def with_sides(documents: Iterable[Document], fraction: float, cleaner: Cleaner) -> tuple[Iterator[Item], CleanRecipe]:
    """The documents, and the cleaning that is left to do. A corpus of one text is cleaned here and cut in two.

    Raises:
        UserError: no document.
    """
    stream = iter(documents)
    first, second = next(stream, None), next(stream, None)
    if first is None:
        raise UserError("there is no document in the data; name another data.source")
    if second is not None:
        return ((one, None) for one in chain([first, second], stream)), cleaner.recipe
    text = cleaner(first)
    if text is None:
        raise UserError("cleaning leaves nothing of the only document in the data; change data.clean")
    if isinstance(text, str) and 0 < fraction < 1:
        train, validation = split_text(text, fraction)
        if train.strip() and validation.strip():
            halves: list[Item] = [(train, "train"), (validation, "validation")]
            return iter(halves), _AS_IT_IS
    return iter([(text, None)]), _AS_IT_IS


def kept(encoded: Encoded, cleaner: Cleaner) -> np.ndarray:
    """Which of the documents stay, bool [documents]; the cleaner counts them."""
    if not encoded.cleaned:
        return np.ones(len(encoded.lengths), np.bool_)
    return np.array([cleaner.keep(one) for one in encoded.cleaned], np.bool_)
