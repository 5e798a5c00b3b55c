"""Where documents come from: the embedded tales, files, folders, globs, standard input, data sets of the hub.

A source is only read as far as the documents asked for; what can be said without reading (a missing file, an
empty folder, an unknown suffix) is said before the first document.
"""

import glob
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..recipe import DataRecipe, SourceRecipe
from . import embedded, files, hub, standard_input
from .compression import CODECS
from .files import Document, OnSkip, Row, Skipped, check_suffix, is_supported, read_rows, to_document, usable

__all__ = ["Document", "Part", "Skipped", "documents", "names", "parts", "resolve", "rows", "size"]

FILE_SUFFIXES = {*files.READERS, files.PARQUET, *CODECS, ".zip", ".html", ".xml", ".pdf"}
TALES = 20_000  # documents where the recipe names no number
VALIDATION_TALES = 1_000
VALIDATION_SEED = 1 << 32  # added to the seed, so that validation tales are not the training tales

Location = str | Path
"""A resolved source: a file, or the name of something that is none (`tales`, `-`, a data set)."""
Sources = str | list[str] | list[SourceRecipe]


class Part(NamedTuple):
    """One source of a mixture. data: the recipe's, with that source alone. weight, epochs: as in `SourceRecipe`."""

    name: str
    data: DataRecipe
    weight: float | None = None
    epochs: int | None = None


def parts(data: DataRecipe) -> list[Part]:
    """The sources of a mixture, each under a name of its own; anything else is a single part.

    `data.field` and `data.documents` hold for each source that has none of its own.
    """
    if isinstance(data.source, str):
        return [Part(data.source, data)]
    if not data.source or isinstance(data.source[0], str):
        return [Part(" + ".join(names(data.source)), data)]
    found: dict[str, Part] = {}
    for one in data.source:
        assert isinstance(one, SourceRecipe)
        name = one.source
        while name in found:
            name += " again"
        changes = {
            "source": one.source,
            "field": one.field or data.field,
            "documents": one.documents or data.documents,
        }
        found[name] = Part(name, data.model_copy(update=changes), one.weight, one.epochs)
    return list(found.values())


def names(source: Sources) -> list[str]:
    """The sources as they are written, of whichever form."""
    return [source] if isinstance(source, str) else [one if isinstance(one, str) else one.source for one in source]


def documents(data: DataRecipe, seed: int, on_skip: OnSkip | None = None) -> Iterator[Document]:
    """The documents of `data.source`, in order, at most `data.documents` over all files; of a mixture, part by part.

    With `data.skip_bad`, rows that can't be used are left out, and `on_skip` is told of each (see `Skipped`).

    Raises:
        UserError: on the call, for whatever `resolve` refuses; while reading, for bad content.
    """
    streams = [
        islice(_documents(resolve(part.data.source), part.data, seed, TALES, on_skip), part.data.documents)
        for part in parts(data)
    ]
    return chain.from_iterable(streams)


def validation_documents(data: DataRecipe, seed: int, on_skip: OnSkip | None = None) -> Iterator[Document]:
    """The documents of `data.validation_source`, all of them; `tales` are then others than those trained on.

    Raises:
        UserError: as `documents`.
    """
    if data.validation_source is None:
        raise ValueError("the recipe has no data.validation_source")
    whole = data.model_copy(update={"documents": None})
    return _documents(resolve(data.validation_source), whole, seed + VALIDATION_SEED, VALIDATION_TALES, on_skip)


def size(data: DataRecipe) -> int | None:
    """Bytes of all files of `data.source`, uncompressed, about; None where a part of it is no file, so not known.

    Raises:
        UserError: as `resolve`; a damaged file.
    """
    total = 0
    for place in resolve(data.source):
        if not isinstance(place, Path):
            return None
        total += files.size(place)
    return total


def resolve(source: Sources) -> list[Location]:
    """The files and names that `source` stands for, folders and globs expanded and sorted. Nothing is read.

    Raises:
        UserError: nothing there, no readable file in a folder or glob, an unsupported suffix.
    """
    if not isinstance(source, str):
        if not source:
            raise UserError("data.source is an empty list; name a file, a folder, a data set, or tales")
        return [location for one in names(source) for location in resolve(one)]
    path = Path(source).expanduser()
    reference = hub.parse(source)
    if source in ("tales", "-") or (reference and source.split(":")[0] in hub.HUB):
        return [source]
    if path.is_dir():
        return list(_folder(path))
    if path.exists():
        check_suffix(path)
        return [path]
    if glob.has_magic(source):
        return list(_glob(source))
    if reference and path.suffix.lower() not in FILE_SUFFIXES:
        return [source]
    close = get_close_matches(source, ["tales", *hub.HUB], n=1)
    known = ", ".join(["tales", *hub.HUB])
    hint = f"did you mean {close[0]}?" if close else f"a source is a file, folder or glob, -, {known}, or owner/name"
    raise UserError(f"{source}: there is no such file or folder; {hint}")


def identity(source: Sources, seed: int) -> list[Any]:
    """What tells one text from another without reading it, for the keys under which work on it is kept.

    A file counts by its absolute path, size and time of change, as for `make`: hashing gigabytes at every start would
    cost more than needless work after a `touch`. The tales count by the seed and a few of their texts, so that a
    changed generator is noticed, standard input by its content. Of a data set on the hub only the name is known.

    Raises:
        UserError: as `resolve`.
    """
    return [_identity(place, seed) for place in resolve(source)]


def _identity(place: Location, seed: int) -> Any:
    if isinstance(place, Path):
        status = place.stat()
        return [str(place.resolve()), status.st_size, status.st_mtime_ns]
    if place == "-":
        return standard_input.spool().digest
    return [seed, list(embedded.documents(64, seed))] if place == "tales" else place


def _folder(folder: Path) -> list[Path]:
    """The supported files below a folder, sorted by path; not hidden ones, nor what only describes the others."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and is_supported(path)
        and path.stem.lower() != "readme"
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise UserError(f"the folder {folder} holds no file that can be read; supported are {files.SUPPORTED}")
    return found


def _glob(pattern: str) -> list[Path]:
    matches = [Path(match) for match in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))]
    if not matches:
        raise UserError(f"no file matches {pattern}")
    found = [path for path in matches if path.is_file()]
    for path in found:
        check_suffix(path)
    return found or [file for folder in matches for file in _folder(folder)]


def _documents(
    places: list[Location], data: DataRecipe, seed: int, tales: int, on_skip: OnSkip | None
) -> Iterator[Document]:
    for place in places:
        if place == "tales":
            yield from embedded.documents(data.documents or tales, seed)
            continue
        reference = hub.parse(place) if isinstance(place, str) else None
        field = (reference and reference.field) or data.field

        def make(row: Any, where: str, field: str = field) -> Document | None:
            return to_document(row, field, where)

        yield from usable(rows(place, data, field), make, _label(place), _skip(data, on_skip))


def rows(place: Location, data: DataRecipe, field: str) -> Iterator[Row]:
    """The rows of a file, standard input or a data set; of columns, `field` alone where it is there."""
    replace = data.invalid_utf8 == "replace"
    if isinstance(place, Path):
        return read_rows(place, replace, column=field)
    if place == "-":
        return read_rows(standard_input.spool().path, replace, standard_input.NAME)
    return hub.hub_rows(place, field, data.streaming)


def _label(place: Location) -> str:
    return standard_input.NAME if place == "-" else str(place)


def _skip(data: DataRecipe, on_skip: OnSkip | None) -> OnSkip | None:
    """What is told of bad rows; None where they are refused."""
    return (on_skip or Skipped()) if data.skip_bad else None
