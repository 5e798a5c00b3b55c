"""Texts of several lengths as one rectangle of ids, with a mask that says which of them are text.

For a model that reads whole texts side by side: scoring, a reward model, classification. Pre-training needs no
padding, it cuts windows out of one long stream.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..errors import UserError
from .base import Tokenizer

Side = Literal["right", "left"]


class PaddedBatch(NamedTuple):
    """T is the length of the longest text, special tokens included."""

    ids: np.ndarray
    """int32 [B, T]."""
    mask: np.ndarray
    """bool [B, T]: True for the ids of a text, with its BOS and EOS; False for the padding."""


def pad_batch(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    bos: bool = True,
    eos: bool = True,
    max_length: int | None = None,
    truncate: Side | None = None,
    side: Side = "right",
    special: bool = True,
) -> PaddedBatch:
    """Encode each text as [BOS] + tokens + [EOS] and fill up to the longest with the pad token, else EOS.

    A special token that the tokenizer lacks is left out. Of a text too long for `max_length` tokens, `truncate`
    drops tokens at its right or left end, never BOS or EOS. `side` is where the padding goes; `special` as in `encode`.

    Raises:
        UserError: there is neither a pad nor an EOS token; a text is too long, and `truncate` is None; `max_length`
            leaves no room for text; or as `encode`.
    """
    if side not in ("right", "left") or truncate not in ("right", "left", None):
        raise UserError(f"a side is right or left, not {side!r}; truncate is one of them or None, not {truncate!r}")
    pad = tokenizer.eos_id if tokenizer.pad_id is None else tokenizer.pad_id
    if pad is None:
        raise UserError("this tokenizer has neither a pad nor an EOS token to fill up a batch with; add one")
    begin, end = (
        [token] if wanted and token is not None else []
        for wanted, token in ((bos, tokenizer.bos_id), (eos, tokenizer.eos_id))
    )
    room = None if max_length is None else max_length - len(begin) - len(end)
    if room is not None and room < 1:
        raise UserError(
            f"max_length must be at least {1 + len(begin) + len(end)}, and it is {max_length}: "
            f"{len(begin) + len(end)} special tokens and one of the text"
        )
    rows: list[list[int]] = []
    for number, tokens in enumerate(tokenizer.encode_batch(texts, special=special), start=1):
        if room is not None and len(tokens) > room:
            if truncate is None:
                raise UserError(
                    f"text {number} has {len(tokens)} tokens, and max_length {max_length} leaves room for {room}; "
                    "truncate its right or left end"
                )
            tokens = tokens[:room] if truncate == "right" else tokens[-room:]
        rows.append([*begin, *tokens, *end])
    return _rectangle(rows, pad, side)


def _rectangle(rows: list[list[int]], pad: int, side: Side) -> PaddedBatch:
    lengths = np.array([len(row) for row in rows], np.int64)
    places = np.arange(lengths.max(initial=0))
    mask = places < lengths[:, None]
    if side == "left":
        mask = mask[:, ::-1].copy()
    ids = np.full(mask.shape, pad, np.int32)
    ids[mask] = [token for row in rows for token in row]
    return PaddedBatch(ids, mask)
