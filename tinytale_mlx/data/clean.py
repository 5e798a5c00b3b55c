"""From documents as they were found to documents worth learning from: each step a switch, each step counted.

The steps come always in this order, whatever the order in the recipe:

    html  normalize  control  lowercase  whitespace  wikitext  skip_headings

Then documents are left out: those of which nothing is left, those too short or too long, those that were there
before. A step is a pure function from text to text, so worker processes can do the steps (`clean_document`), while
one process decides in order what stays (`Cleaner.keep`). Of a conversation the contents of the messages are cleaned,
and its length is that of all contents together.

To clean twice is to clean once, with one exception: `html` is a decoding, and what it gives may look encoded again.
Quotes, apostrophes, digits and the letters of all scripts are touched by no step that is not about them.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

from ..errors import UserError
from ..recipe import CleanRecipe
from .duplicates import Duplicates, Fingerprint, fingerprint
from .files import Document
from .markup import strip_html, undo_wikitext

Reason = Literal["empty", "too_short", "too_long", "duplicate", "near_duplicate"]
REASONS: tuple[Reason, ...] = ("empty", "too_short", "too_long", "duplicate", "near_duplicate")
SAMPLES = 3
SAMPLE_CHARACTERS = 240
BEFORE = 40  # characters of a sample before the first difference

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BLANK_LINES = re.compile(r"\n{3,}")


def remove_control(text: str) -> str:
    """Without control characters (Unicode's Cc) but newline and tab; other line ends, such as `\\r`, become newlines.

    Invisible characters that do something stay: joiners, soft hyphens, marks of the writing direction.
    """
    return _CONTROL.sub("", _LINE_END.sub("\n", text)) if _CONTROL.search(text) else text


def collapse_whitespace(text: str) -> str:
    """Every run of white space within a line becomes one space, every run of blank lines one blank line.

    Neither is left at the ends of a line or of the text. Code loses its indentation.
    """
    lines = "\n".join([" ".join(line.split()) for line in text.splitlines()])
    return _BLANK_LINES.sub("\n\n", lines).strip("\n")


def drop_headings(text: str) -> str:
    """Without blank lines and without lines such as `= Title =` and `== Section ==`."""
    kept = "\n".join([line for line in text.split("\n") if (bare := line.strip()) and not _is_heading(bare)])
    return kept + "\n" if kept and text.endswith("\n") else kept


def _is_heading(line: str) -> bool:
    """Whether the line begins and ends with equally many `=`, spaces aside, and has something between."""
    if line[0] != "=" or line[-1] != "=" or not (title := line.strip("= ")):
        return False
    before, _, after = line.partition(title)
    return before.count("=") == after.count("=")


def steps(recipe: CleanRecipe) -> dict[str, Callable[[str], str]]:
    """The steps that are switched on, by their names, in order."""
    form = recipe.normalize
    normalize = partial(unicodedata.normalize, form or "NFC")
    every: dict[str, Callable[[str], str]] = {
        "html": strip_html,
        "normalize": normalize,
        "control": remove_control,
        # Some lower-case letters are one character where the capital is two, so it has to be normal again.
        "lowercase": (lambda text: normalize(text.lower())) if form else str.lower,
        "whitespace": collapse_whitespace,
        "wikitext": undo_wikitext,
        "skip_headings": drop_headings,
    }
    return {name: step for name, step in every.items() if getattr(recipe, name)}


class Sample(NamedTuple):
    """A changed document, shortened, from a little before its first difference."""

    raw: str
    cleaned: str


class Cleaned(NamedTuple):
    """A document after the steps, and what has to be known of it to decide whether it stays."""

    document: Document
    removed: dict[str, int]
    """For each step that changed something, by how many characters the document became shorter; below 0, longer."""
    reason: Reason | None
    """Why it is left out, as far as that is known without other documents."""
    fingerprint: Fingerprint | None
    """For a recipe that looks for duplicates."""
    sample: Sample | None
    """Of a document that is not as it was."""


def clean_text(recipe: CleanRecipe, text: str) -> tuple[str, dict[str, int]]:
    """The text after the steps, and for each step that changed it how many characters shorter it became."""
    removed: dict[str, int] = {}
    for name, step in steps(recipe).items():
        before, text = text, step(text)
        if text != before:
            removed[name] = len(before) - len(text)
    return text, removed


def clean_document(recipe: CleanRecipe, document: Document) -> Cleaned:
    """The part of cleaning that looks at one document only: a pure function, for worker processes."""
    raw = [document] if isinstance(document, str) else [message["content"] for message in document]
    removed: dict[str, int] = {}
    texts: list[str] = []
    for text in raw:
        cleaned, changes = clean_text(recipe, text)
        texts.append(cleaned)
        for name, characters in changes.items():
            removed[name] = removed.get(name, 0) + characters
    reason = _reason(recipe, raw, texts)
    sample = next((_sample(*pair) for pair in zip(raw, texts, strict=True) if pair[0] != pair[1]), None)
    if isinstance(document, str):
        document = key = texts[0]
    else:
        document = [{**message, "content": text} for message, text in zip(document, texts, strict=True)]
        key = "\0".join(f"{message['role']}\0{message['content']}" for message in document)
    found = None
    if recipe.duplicates != "keep" and reason is None:
        found = fingerprint(key, recipe.similarity if recipe.duplicates == "near" else None)
    return Cleaned(document, removed, reason, found, sample)


def _reason(recipe: CleanRecipe, raw: list[str], cleaned: list[str]) -> Reason | None:
    """A conversation is empty when one of its messages became so: an answer to nothing teaches nothing."""
    if any(before.strip() and not after.strip() for before, after in zip(raw, cleaned, strict=True)):
        return "empty"
    length = sum(map(len, cleaned))
    if length < recipe.min_characters:
        return "too_short"
    return "too_long" if recipe.max_characters is not None and length > recipe.max_characters else None


def _sample(raw: str, cleaned: str) -> Sample:
    low, high = 0, min(len(raw), len(cleaned))  # the first `low` characters are equal, and no more than `high` are
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if raw[low:middle] == cleaned[low:middle] else (low, middle - 1)
    start = max(0, low - BEFORE)
    return Sample(_excerpt(raw, start), _excerpt(cleaned, start))


def _excerpt(text: str, start: int) -> str:
    end = start + SAMPLE_CHARACTERS
    return "…" * (start > 0) + text[start:end] + "…" * (end < len(text))


@dataclass
class Counts:
    """Documents in, and what became of them."""

    documents: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    """By step, the documents that it changed; by all steps that are switched on."""
    removed: dict[str, int] = field(default_factory=dict)
    """By step, the characters by which it made documents shorter, in all."""
    dropped: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))

    @property
    def kept(self) -> int:
        return self.documents - sum(self.dropped.values())


class Cleaner:
    """Cleans one document after the other, and counts. The same documents in the same order give the same."""

    def __init__(self, recipe: CleanRecipe) -> None:
        """Raises UserError for bounds that leave no length."""
        if recipe.max_characters is not None and recipe.max_characters < recipe.min_characters:
            raise UserError(
                f"data.clean.max_characters {recipe.max_characters} is below "
                f"data.clean.min_characters {recipe.min_characters}, so that no document is left"
            )
        self.recipe = recipe
        names = steps(recipe)
        self.counts = Counts(changed=dict.fromkeys(names, 0), removed=dict.fromkeys(names, 0))
        self.samples: list[Sample] = []
        """The first few documents that were changed."""
        self._duplicates = Duplicates(recipe.similarity if recipe.duplicates == "near" else None)

    def __call__(self, document: Document) -> Document | None:
        """The document, cleaned; None if it is left out."""
        cleaned = clean_document(self.recipe, document)
        return cleaned.document if self.keep(cleaned) else None

    def keep(self, cleaned: Cleaned) -> bool:
        """Count a document that was cleaned elsewhere, with the same recipe, and say whether it stays.

        Call it in the order of the documents. Of `cleaned` the document itself is not looked at.
        """
        self.counts.documents += 1
        for name, characters in cleaned.removed.items():
            self.counts.changed[name] += 1
            self.counts.removed[name] += characters
        if cleaned.sample and len(self.samples) < SAMPLES:
            self.samples.append(cleaned.sample)
        reason = cleaned.reason
        if reason is None and cleaned.fingerprint:
            reason = self._duplicates.find(cleaned.fingerprint)
        if reason:
            self.counts.dropped[reason] += 1
        return reason is None
