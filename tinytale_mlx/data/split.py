"""Which side of a corpus a document is on: training or validation.

By a hash of its text, not by a draw: a document stays on its side when the corpus grows or changes its
order, and exact duplicates are never on both.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from ..errors import UserError
from .files import Document

Side = Literal["train", "validation"]
SIDES: tuple[Side, Side] = ("train", "validation")
LINE_SEARCH = 1000  # characters before and after the cut of a single text in which a line border is looked for


def split(document: Document, fraction: float) -> Side:
    """`validation` for about `fraction` of all different texts, else `train`; a pure function of the text."""
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "little") < fraction * 2**64 else "train"


def split_text(text: str, fraction: float) -> tuple[str, str]:
    """A single text cut in two, the last `fraction` of it for validation, at a line border if one is near.

    nanoGPT cuts Shakespeare so: `data[:int(n * 0.9)]`.
    """
    cut = int(len(text) * (1 - fraction))
    near = min(LINE_SEARCH, len(text) // 20)
    before, after = text.rfind("\n", cut - near, cut), text.find("\n", cut, cut + near)
    border = before if before >= 0 else after
    if border >= 0:
        cut = border + 1
    return text[:cut], text[cut:]


def check_sides(counts: dict[Side, int], fraction: float | None, needed: Sequence[Side] = SIDES) -> None:
    """Refuse a split with an empty side. `fraction` is None where validation has a source of its own.

    Raises:
        UserError: which side is empty, and what to do.
    """
    empty = [side for side in needed if not counts[side]]
    if not empty:
        return
    if fraction is None:
        raise UserError(f"there is no document for {empty[0]}; name another data.{SOURCES[empty[0]]}")
    total = sum(counts.values())
    corpus = f"{total} document{'s' * (total != 1)}"
    raise UserError(
        f"of {corpus}, a data.validation of {fraction} leaves none for {empty[0]}; "
        "use more documents, another data.validation, or a data.validation_source"
    )


SOURCES = {"train": "source", "validation": "validation_source"}
