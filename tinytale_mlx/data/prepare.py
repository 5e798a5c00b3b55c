"""Documents to shards, once: clean, split, encode, write, and reuse until something they were made from changes."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from .. import disk
from ..errors import UserError
from ..recipe import CleanRecipe, DataRecipe
from ..tokenizers.base import Tokenizer
from . import sources
from .clean import Cleaner
from .encode import Encoded, Encoder, Item, encode_all, kept, with_sides
from .files import Document, Skipped
from .shards import Shards, ShardWriter, open_shards, publish
from .split import SIDES, Side, check_sides

FORMAT = 2  # raise it when the same documents come to give other files
REPORT = "report.json"
NOT_THE_TOKENS = {"source", "validation_source", "rows", "document_mask", "temperature", "streaming", "store"}
"""Settings that leave the tokens as they are; the sources count by what they stand for, see `sources.identity`."""
Report = Callable[[int, int], None]
"""Called as the work goes on with the documents and tokens so far."""


def open_or_prepare(
    data: DataRecipe,
    tokenizer: Tokenizer,
    cache: Path,
    seed: int,
    report: Report | None = None,
    workers: int = 1,
    *,
    hold_out: bool = True,
    validation_only: int | None = None,
) -> Shards:
    """The shards of a recipe: those in `cache`, in a folder named by their key, if they are whole; else new ones.

    Without `hold_out` all documents are for training, whatever the recipe says of validation. With
    `validation_only` nothing but the validation text is prepared, up to about so many tokens. Of two processes that
    want the same shards at the same time, one prepares them and the other waits.

    Raises:
        UserError: whatever the sources, the split or the disk object to.
    """
    key = data_key(data, tokenizer, seed, hold_out, validation_only)
    with _locked(cache / key):
        with suppress(UserError):
            found = open_shards(cache / key)
            if {shard.key for shard in found} == {key}:
                return found
        skipped, validation = Skipped(), None
        if hold_out and data.validation_source is not None:
            validation = sources.validation_documents(data, seed, skipped)
        train = () if validation and validation_only else sources.documents(data, seed, skipped)
        return prepare(
            train,
            tokenizer,
            cache / key,
            data.validation if hold_out else None,
            validation,
            key,
            report,
            workers,
            data.clean,
            skipped,
            validation_only,
        )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with disk.writing("the data", directory):
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "lock").open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def data_key(
    data: DataRecipe, tokenizer: Tokenizer, seed: int, hold_out: bool = True, validation_only: int | None = None
) -> str:
    """A hash of everything that shards are made from; the same key means the same files.
    What the sources count by is in `sources.identity`.
    """
    said = data.model_dump(exclude=NOT_THE_TOKENS)
    parts: list[Any] = [FORMAT, said, tokenizer.fingerprint, hold_out, validation_only]
    for source in (data.source, data.validation_source):
        parts.append([] if source is None else sources.identity(source, seed))
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def prepare(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    directory: Path,
    fraction: float | None = 0.05,
    validation: Iterable[Document] | None = None,
    key: str = "",
    report: Report | None = None,
    workers: int = 1,
    clean: CleanRecipe | None = None,
    skipped: Skipped | None = None,
    validation_only: int | None = None,
) -> Shards:
    """Clean and encode documents into a training and a validation shard, in constant memory.

    `validation` are documents of their own for that side; without them `fraction` of `documents` is held out, and if
    that is None, nothing. Old shards in `directory` stay as they are until the new ones are complete. What was cleaned
    away, and what `skipped` has counted, is in report.json. The files do not depend on `workers`. `validation_only`: as
    in `open_or_prepare`.

    Raises:
        UserError: no document, none on one of the sides, or the disk cannot take the files.
    """
    directory = Path(directory)
    cleaner = Cleaner(clean or CleanRecipe())
    items: Iterable[Item]
    if validation is None:
        items, left_to_do = with_sides(documents, fraction or 0.0, cleaner)
    else:
        items = chain(((one, "train") for one in documents), ((one, "validation") for one in validation))
        left_to_do = cleaner.recipe
    encoder = Encoder(tokenizer, left_to_do, fraction or 0.0)
    with disk.writing("the data", directory), ExitStack() as stack:
        directory.mkdir(parents=True, exist_ok=True)
        writers: dict[Side, ShardWriter] = {
            side: stack.enter_context(ShardWriter(directory / f"{side}.json", tokenizer, key)) for side in SIDES
        }
        counts = _fill(writers, encode_all(encoder, items, workers), cleaner, validation_only, report)
        if fraction is not None or validation is not None:
            needed: tuple[Side, ...] = SIDES if validation_only is None else ("validation",)
            check_sides(counts, fraction if validation is None else None, needed)
        _write_report(directory, cleaner, skipped or Skipped())
        publish(list(writers.values()))
    return open_shards(directory)


def _fill(
    writers: dict[Side, ShardWriter],
    stream: Iterable[Encoded],
    cleaner: Cleaner,
    validation_only: int | None,
    report: Report | None,
) -> dict[Side, int]:
    """Write what stays, each document on its side; the documents of each that there were."""
    counts: dict[Side, int] = dict.fromkeys(SIDES, 0)
    for encoded in stream:
        staying = kept(encoded, cleaner)
        mine = {"train": staying & ~encoded.held_out, "validation": staying & encoded.held_out}
        for side in SIDES:
            counts[side] += int(mine[side].sum())
            if side == "validation" or validation_only is None:
                writers[side].add(*encoded.part(mine[side]))
        if report:
            report(sum(counts.values()), sum(writer.tokens for writer in writers.values()))
        if validation_only is not None and writers["validation"].tokens >= validation_only:
            break
    return counts


def _write_report(directory: Path, cleaner: Cleaner, skipped: Skipped) -> None:
    content = {
        "cleaning": asdict(cleaner.counts),
        "samples": [sample._asdict() for sample in cleaner.samples],
        "skipped": {name: {"rows": rows, "first": skipped.first[name]} for name, rows in skipped.counts.items()},
    }
    with disk.replacing(directory / REPORT) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_report(directory: Path) -> dict[str, Any]:
    """What preparing these shards left out: {"cleaning": see `clean.Counts`, "samples": [...], "skipped": {...}}."""
    try:
        return json.loads((directory / REPORT).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{directory / REPORT} can't be read ({error}); delete the folder and prepare again") from error
