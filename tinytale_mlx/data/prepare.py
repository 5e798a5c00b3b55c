"""Documents to shards, once: split, encode, write, and reuse until something they were made from changes."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..recipe import DataRecipe
from ..tokenizers.base import Tokenizer
from ..tokenizers.chat import encode_chat
from . import embedded, sources
from .files import Document
from .shards import Shards, ShardWriter, open_shards, publish
from .split import SIDES, Side, check_sides, sides

FORMAT = 1  # raise it when the same documents come to give other files
BATCH_CHARACTERS = 1 << 20  # encoded at a time
Report = Callable[[int, int], None]
"""Called as the work goes on with the documents and tokens so far."""


def open_or_prepare(
    data: DataRecipe, tokenizer: Tokenizer, directory: Path, seed: int, report: Report | None = None
) -> Shards:
    """The shards of a recipe: those in `directory` if they agree with it and are whole, else new ones.

    Raises:
        UserError: whatever the sources, the split or the disk object to.
    """
    key = data_key(data, tokenizer, seed)
    with suppress(UserError):
        found = open_shards(directory)
        if {shard.key for shard in found} == {key}:
            return found
    validation = sources.validation_documents(data, seed) if data.validation_source is not None else None
    return prepare(sources.documents(data, seed), tokenizer, directory, data.validation, validation, key, report)


def data_key(data: DataRecipe, tokenizer: Tokenizer, seed: int) -> str:
    """A hash of everything that shards are made from; the same key means the same files.

    A file counts by its absolute path, size and time of change, as for `make`: hashing gigabytes at every
    start would cost more than a needless preparation after a `touch`. The tales count by the seed and a few
    of their texts, so that a changed generator is noticed. Of a data set on the hub only the name is known.
    """
    parts: list[Any] = [FORMAT, data.model_dump(), tokenizer.fingerprint]
    for source in (data.source, data.validation_source):
        for place in sources.resolve(source) if source is not None else []:
            if isinstance(place, Path):
                status = place.stat()
                parts.append([str(place.resolve()), status.st_size, status.st_mtime_ns])
            elif place == "tales":
                parts.append([seed, list(embedded.documents(64, seed))])
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def prepare(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    directory: Path,
    fraction: float = 0.05,
    validation: Iterable[Document] | None = None,
    key: str = "",
    report: Report | None = None,
) -> Shards:
    """Encode documents as [BOS] + tokens + [EOS] into a training and a validation shard, in constant memory.

    `validation` are documents of their own for that side; without them `fraction` of `documents` is held out.
    Old shards in `directory` stay as they are until the new ones are complete.

    Raises:
        UserError: no document, none on one of the sides, or the disk cannot take the files.
    """
    directory = Path(directory)
    pairs: Iterable[tuple[Side, Document]]
    if validation is None:
        pairs = sides(documents, fraction)
    else:
        pairs = chain((("train", one) for one in documents), (("validation", one) for one in validation))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            writers: dict[Side, ShardWriter] = {
                side: stack.enter_context(ShardWriter(directory / f"{side}.json", tokenizer, key)) for side in SIDES
            }
            _fill(writers, pairs, tokenizer, report)
            counts: dict[Side, int] = {side: writer.documents for side, writer in writers.items()}
            check_sides(counts, fraction if validation is None else None)
            publish(list(writers.values()))
    except OSError as error:
        raise UserError(f"the data could not be written to {directory}: {error.strerror or error}") from error
    return open_shards(directory)


def _fill(
    writers: dict[Side, ShardWriter],
    pairs: Iterable[tuple[Side, Document]],
    tokenizer: Tokenizer,
    report: Report | None,
) -> None:
    for batch in _batches(pairs):
        encoded = encode_documents([document for _, document in batch], tokenizer)
        for (side, document), tokens in zip(batch, encoded, strict=True):
            writers[side].add(tokens, _size(document))
        if report:
            report(sum(w.documents for w in writers.values()), sum(w.tokens for w in writers.values()))


def _batches(pairs: Iterable[tuple[Side, Document]]) -> Iterator[list[tuple[Side, Document]]]:
    batch: list[tuple[Side, Document]] = []
    size = 0
    for side, document in pairs:
        batch.append((side, document))
        size += _size(document)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode_documents(documents: list[Document], tokenizer: Tokenizer) -> list[list[int]]:
    """[BOS] + tokens + [EOS] of each document, the two where the tokenizer has them.

    Where they are one token, as in GPT-2, it stands at the end only: it begins the next one, too. A marker
    spelled out in a document is text like any other; only `encode_chat` writes the chat's own markers.
    """
    begin, end = ([] if token is None else [token] for token in (tokenizer.bos_id, tokenizer.eos_id))
    if begin == end:
        begin = []
    texts = iter(tokenizer.encode_batch([one for one in documents if isinstance(one, str)], special=False))
    return [
        [*begin, *(next(texts) if isinstance(document, str) else encode_chat(tokenizer, document)), *end]
        for document in documents
    ]


def _size(document: Document) -> int:
    """UTF-8 bytes of a document's text; of a conversation, of the contents of its messages."""
    if isinstance(document, str):
        return len(document.encode())
    return sum(len(message["content"].encode()) for message in document)
