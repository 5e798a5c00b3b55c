"""Where documents come from: the embedded tales, files, folders, globs, data sets of the hub, or several.

A source is only read as far as the documents asked for; what can be said without reading (a missing file, an
empty folder, an unknown suffix) is said before the first document. Data sets are streamed (`datasets`), never
downloaded whole.
"""

import glob
import re
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path

from ..errors import UserError
from ..recipe import DataRecipe
from . import embedded
from .files import READERS, SUPPORTED, Document, check_suffix, read_file, to_document

__all__ = ["HUB", "Document", "documents", "resolve", "validation_documents"]

HUB = {
    "tinystories": ("roneneldan/TinyStories", None),
    "wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "wikitext-103": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
    "openwebtext": ("Skylion007/openwebtext", None),
}
"""Short names of data sets: repository and configuration."""

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FILE_SUFFIXES = {*READERS, ".csv", ".tsv", ".parquet", ".gz", ".zst", ".zip", ".md", ".html"}
TALES = 20_000  # documents where the recipe names no number
VALIDATION_TALES = 1_000
VALIDATION_SEED = 1 << 32  # added to the seed, so that validation tales are not the training tales

Location = str | Path
"""A resolved source: a file, or the name of something that is none (`tales`, a data set)."""


def documents(data: DataRecipe, seed: int) -> Iterator[Document]:
    """The documents of `data.source`, in order, at most `data.documents` over all sources together.

    Raises:
        UserError: on the call, for whatever `resolve` refuses; while reading, for bad content.
    """
    locations = resolve(data.source)
    stream = chain.from_iterable(_read(place, data, seed, data.documents or TALES) for place in locations)
    return islice(stream, data.documents)


def validation_documents(data: DataRecipe, seed: int) -> Iterator[Document]:
    """The documents of `data.validation_source`, all of them; `tales` are then others than those trained on.

    Raises:
        UserError: as `documents`.
    """
    if data.validation_source is None:
        raise ValueError("the recipe has no data.validation_source")
    locations = resolve(data.validation_source)
    return chain.from_iterable(_read(place, data, seed + VALIDATION_SEED, VALIDATION_TALES) for place in locations)


def resolve(source: str | list[str]) -> list[Location]:
    """The files and names that `source` stands for, folders and globs expanded and sorted.

    Raises:
        UserError: nothing there, no readable file in a folder or glob, an unsupported suffix.
    """
    if isinstance(source, list):
        if not source:
            raise UserError("data.source is an empty list; name a file, a folder, a data set, or tales")
        return [location for one in source for location in resolve(one)]
    path = Path(source).expanduser()
    if source == "tales" or source.split(":")[0] in HUB:
        return [source]
    if path.is_dir():
        return list(_folder(path))
    if path.exists():
        check_suffix(path)
        return [path]
    if glob.has_magic(source):
        return list(_glob(source))
    if REPOSITORY.fullmatch(source.split(":")[0]) and path.suffix.lower() not in FILE_SUFFIXES:
        return [source]
    close = get_close_matches(source, ["tales", *HUB], n=1)
    names = ", ".join(["tales", *HUB])
    hint = f"did you mean {close[0]}?" if close else f"a source is a file, folder or glob, {names}, or owner/name"
    raise UserError(f"{source}: there is no such file or folder; {hint}")


def _folder(folder: Path) -> list[Path]:
    """The supported files below a folder, sorted by path; hidden ones are left out."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix.lower() in READERS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise UserError(f"the folder {folder} holds no file that can be read; supported are {SUPPORTED}")
    return found


def _glob(pattern: str) -> list[Path]:
    matches = [Path(match) for match in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))]
    if not matches:
        raise UserError(f"no file matches {pattern}")
    files = [path for path in matches if path.is_file()]
    for path in files:
        check_suffix(path)
    return files or [file for folder in matches for file in _folder(folder)]


def _read(place: Location, data: DataRecipe, seed: int, tales: int) -> Iterator[Document]:
    if isinstance(place, Path):
        return read_file(place, data.field, data.invalid_utf8 == "replace")
    if place == "tales":
        return embedded.documents(tales, seed)
    return _read_hub(place, data.field)


def _read_hub(source: str, field: str) -> Iterator[Document]:
    """The rows of `name[:split][:field]`, streamed.

    Raises:
        UserError: no connection, no such data set or split, or a row without the field.
    """
    name, split, named_field, *_ = [*source.split(":"), "", ""]
    path, config = HUB.get(name, (name, None))
    rows = _rows(source, path, config, split or "train")
    for number, row in enumerate(rows, 1):
        yield from to_document(row, named_field or field, f"{source}, row {number}")


def _rows(source: str, path: str, config: str | None, split: str) -> Iterator[dict]:
    _check_connection(source)
    from datasets import load_dataset  # takes a second, and only a data set needs it

    try:
        yield from load_dataset(path, config, split=split, streaming=True)
    except Exception as error:  # the library raises a dozen kinds, from several packages
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the data set {source} could not be read from the Hugging Face hub ({reason}); "
            "to train on a text of your own, pass --data FILE"
        ) from error


def _check_connection(source: str) -> None:
    """Ask the hub once; the library on its own tries for 20 seconds or more before it gives up."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as error:  # which kind depends on the HTTP library, and that on the version
        raise UserError(
            f"{source} is no file or folder here, and the Hugging Face hub, where there may be a data set of "
            "that name, cannot be reached; pass --data FILE to train on a text of your own"
        ) from error
