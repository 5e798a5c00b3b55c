"""The text: where it comes from, what is cleaned away, and how it becomes rows."""

from typing import Annotated, Literal

from pydantic import Field

from .section import Fraction, PositiveFloat, PositiveInt, Section


class CleanRecipe(Section):
    """What happens to each document before it is split off and encoded. By default nothing; every step is counted."""

    html: bool = False
    """Tags are taken out, entities such as `&amp;` become characters."""
    wikitext: bool = False
    """WikiText's own spelling is undone: ` @-@ `, ` @,@ `, spaces before punctuation and inside quotes."""
    skip_headings: bool = False
    """Lines such as `= Title =` and blank lines are left out."""
    control: bool = False
    """Control characters but newline and tab are left out."""
    whitespace: bool = False
    """Runs of spaces become one, runs of blank lines one, and none is left at the ends."""
    lowercase: bool = False
    normalize: Literal["NFC", "NFKC"] | None = None
    min_characters: Annotated[int, Field(ge=0)] = 0
    """Shorter documents are left out, and so are those longer than `max_characters`."""
    max_characters: PositiveInt | None = None
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """Which documents are left out because they were there before: equal ones, or also much alike ones."""
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.8
    """For `near`: the share of five-word runs in common (Jaccard) from which on two documents are alike."""


class SourceRecipe(Section):
    """One source of a mixture."""

    source: str
    weight: PositiveFloat | None = None
    """Its share of the training rows, in relation to the other weights; left out for all sources, their sizes."""
    epochs: PositiveInt | None = None
    """Training stops with an error before it shows this source more often."""
    field: str | None = None
    documents: PositiveInt | None = None


class DataRecipe(Section):
    """Where the documents come from and how they become training and validation tokens."""

    source: str | list[str] | list[SourceRecipe] = "tales"
    """`tales` (embedded), a file, a folder, a glob, `-` (standard input), or a Hugging Face data set, as
    `owner/name[:split][:field]`; a list of them, read one after the other; or a mixture, see `SourceRecipe`."""
    temperature: PositiveFloat = 1.0
    """Of a mixture: weights w become w^(1/temperature); above 1, small sources are shown more often."""
    streaming: bool = True
    """Data sets of the hub are read as they arrive; otherwise they are downloaded first, and kept."""
    store: bool = True
    """The tokens are written to disk once; otherwise they are made anew while training, and never stored."""
    documents: PositiveInt | None = None
    """At most this many documents; for `tales`, how many to write."""
    field: str = "text"
    """The field of a JSON, CSV or data-set row that holds the text."""
    skip_bad: bool = False
    """Rows that can't be used are left out and counted, instead of refused."""
    clean: CleanRecipe = CleanRecipe()
    rows: Literal["windows", "documents", "packed"] = "windows"
    """What a training sequence is: any window of the text, one that begins with a document, or as many whole
    documents as fit (best-fit packing)."""
    document_mask: bool = False
    """Whether a token attends to its own document only."""
    validation: Fraction = 0.05
    """Share of the documents held out, chosen by a hash of their text; of a single document, its end."""
    validation_source: str | list[str] | None = None
    """A source of its own for validation; then `validation` is not used."""
    invalid_utf8: Literal["refuse", "replace"] = "refuse"
