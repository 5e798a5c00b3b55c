"""Data sets of the Hugging Face hub, through `datasets`: as they arrive, or downloaded first and kept."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError

REFERENCE = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+|[\w-]+)(@(?P<configuration>[\w.-]+))?"
    r"(:(?P<split>[\w.-]*))?(:(?P<field>[^:]*))?"
)
"""owner/name[@configuration][:split][:field], or a short name instead of owner/name."""

TITLE = re.compile(r" = [^=\s](.*[^=\s])? = ")
"""Of an article in WikiText; a section within it has two or more equals signs."""


class DataSet(NamedTuple):
    """articles: its rows are lines of articles, and not documents."""

    repository: str
    configuration: str | None = None
    articles: bool = False


HUB = {
    "tinystories": DataSet("roneneldan/TinyStories"),
    "wikitext-2": DataSet("Salesforce/wikitext", "wikitext-2-raw-v1", articles=True),
    "wikitext-103": DataSet("Salesforce/wikitext", "wikitext-103-raw-v1", articles=True),
    "openwebtext": DataSet("Skylion007/openwebtext"),
}
"""Data sets with a short name."""


class Reference(NamedTuple):
    data_set: DataSet
    split: str
    field: str | None


def parse(source: str) -> Reference | None:
    """What a source says about a data set; None if it is none."""
    found = REFERENCE.fullmatch(source)
    if not found:
        return None
    name, configuration = found["repository"], found["configuration"]
    if "/" in name:
        data_set = DataSet(name, configuration, any(name == one.repository and one.articles for one in HUB.values()))
    elif name in HUB and configuration is None:
        data_set = HUB[name]
    else:
        return None
    return Reference(data_set, found["split"] or "train", found["field"] or None)


def hub_rows(source: str, field: str, streaming: bool) -> Iterator[tuple[Any, str]]:
    """(row, where) of a data set; of one whose rows are lines, its articles as {`field`: text}.

    Raises:
        UserError: no connection, or no such data set, configuration or split.
    """
    reference = parse(source)
    if reference is None:
        raise ValueError(f"{source} is no data set")
    rows = _load(source, reference, streaming)
    for number, row in enumerate(articles(rows, field) if reference.data_set.articles else rows, 1):
        yield row, f"{source}, row {number}"


def articles(rows: Iterator[Any], field: str) -> Iterator[Any]:
    """The rows of WikiText, each a line with or without its end, joined at the titles, which follow a blank line."""
    lines: list[str] = []
    for row in rows:
        if not isinstance(row.get(field), str):
            yield row  # to be refused as any other row is
            continue
        line = row[field].removesuffix("\n")
        if TITLE.fullmatch(line) and lines and not lines[-1].strip():
            yield {field: "\n".join(lines)}
            lines = []
        lines.append(line)
    if lines:
        yield {field: "\n".join(lines)}


def _load(source: str, reference: Reference, streaming: bool) -> Iterator[Any]:
    repository, configuration, _ = reference.data_set
    from datasets import load_dataset  # takes a second, and only a data set needs it

    if streaming or not _is_kept(repository):
        _check_connection(source)
    try:
        yield from load_dataset(repository, configuration, split=reference.split, streaming=streaming)
    except Exception as error:  # the library raises a dozen kinds, from several packages
        reason = " ".join(str(error).split())
        hint = "name one of them, as in owner/name@configuration" if "Config name is missing" in reason else ""
        raise UserError(
            f"the data set {source} could not be read from the Hugging Face hub ({reason[:300]}); "
            f"{hint or 'to train on a text of your own, pass --data FILE'}"
        ) from error


def _is_kept(repository: str) -> bool:
    """Whether the data set was downloaded before: then the library can do without the hub."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = repository.rpartition("/")
    return (Path(config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}").is_dir()


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
