"""What a tokenizer is, what it makes of a text, and what others make of the same text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import run
from ..errors import UserError
from ..recipe import DataRecipe
from ..tokenizers import Tokenizer
from ..tokenizers.inspection import Piece, longest_tokens, pieces, statistics
from .tokenizer_folders import find_tokenizer
from .tokenizing import Notify, first_sentence, texts_of

KINDS = {
    "ByteBPE": "byte-level BPE",
    "LongestMatchTokenizer": "longest match over bytes",
    "SentencePieceTokenizer": "SentencePiece",
    "CharTokenizer": "characters",
    "WordTokenizer": "words",
    "HuggingFaceTokenizer": "Hugging Face",
}
TALES = DataRecipe(source="tales", documents=200)


def inspect_tokenizer(
    what: str | None = None,
    data: list[str] | None = None,
    text: str | None = None,
    others: list[str] | None = None,
    root: Path = run.ROOT,
    notify: Notify = lambda event: None,
) -> tuple[dict[str, Any], list[Piece]]:
    """Facts about a tokenizer with figures on a text, as `tinytale tokenizer inspect --json` prints them; and how it
    cuts the text, or of documents the first sentence.

    The text is `text`, in which special tokens count as such, or all documents of `data`, or some of the embedded
    tales; a tokenizer that lacks a character of those has no figures. `others` are measured on the same text.

    Raises:
        UserError: no such tokenizer; what the documents' source objects to; a character that a tokenizer lacks.
    """
    tokenizer, path = find_tokenizer(what, root)
    compared = [(tokenizer, str(path)), *((find_tokenizer(other, root)[0], other) for other in others or [])]
    source = DataRecipe(source=data) if data else TALES
    figures: list[dict[str, Any]] = []
    cut: list[Piece] = []
    try:
        for one, name in compared:
            texts = _reported(iter((text,)) if text is not None else texts_of(source, 0), name, notify)
            figures.append(
                {"tokenizer": name, "vocab_size": one.vocab_size, **statistics(one, texts, special=text is not None)}
            )
        shown = first_sentence(next(texts_of(source, 0))) if text is None else text
        cut = pieces(tokenizer, shown, special=text is not None)
    except UserError:
        if data or text is not None or others:
            raise
    facts = {
        "tokenizer": str(path),
        "kind": KINDS[type(tokenizer).__name__],
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": _specials(tokenizer),
        "longest_tokens": longest_tokens(tokenizer),
        "text": "the given text"
        if text is not None
        else ", ".join(data)
        if data
        else f"{TALES.documents} embedded tales",
        "figures": figures,
    }
    return facts, cut


def _specials(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    roles = tokenizer.specials.roles
    return [
        {"id": token_id, "token": name, "roles": [role for role, filled_by in roles.items() if filled_by == name]}
        for name, token_id in tokenizer.special_ids.items()
    ]


def _reported(texts: Iterator[str], name: str, notify: Notify) -> Iterator[str]:
    """The texts as they come, with a word about how many there have been."""
    done = 0
    for text in texts:
        notify({"event": "progress", "text": f"encoding with {name}: {done / 1e6:,.0f}M characters"})
        yield text
        done += len(text)
