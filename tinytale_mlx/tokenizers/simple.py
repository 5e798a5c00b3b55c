"""Two tokenizers that look pieces of text up in a table: characters (as in char-rnn and nanoGPT) and words.

What the table lacks becomes the unk token; without one it is an error that names the piece. So unlike
byte-level BPE these lose text they have not seen in training.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Self

from ..errors import UserError
from .base import ListedTokenizer, check_contiguous, numbers_of
from .bpe_training import BATCH, Progress, Texts, count_words, plain_pieces, read_documents
from .files import (
    Json,
    fill_frame,
    find_rules,
    frame_json,
    frame_of,
    normalizer_json,
    read_json,
    read_specials,
    reading,
    special_ids_from,
    split_json,
)
from .special import SpecialTokens
from .splitting import STANDARD_PATTERNS, TextRules, encode_utf8, grouped, regroup
from .trie import SpecialSplitter


class _Table(dict[str, int]):
    """Piece to id; a piece that is not there is unknown."""

    def __init__(self, entries: dict[str, int], unknown: int | None) -> None:
        super().__init__(entries)
        self._unknown = unknown

    def __missing__(self, piece: str) -> int:
        if self._unknown is None:
            raise UserError(f"{piece!r} is not in the vocabulary, and there is no unk token to stand for it")
        return self._unknown


class TableTokenizer(ListedTokenizer):
    """What the two have in common. `vocab` maps each id to its text (a special token: to its name)."""

    vocab: dict[int, str]

    def __init__(self, vocab: dict[int, str], special_tokens: SpecialTokens | Sequence[str] = ()) -> None:
        """Ids of `vocab` are 0 to n - 1, special tokens among them."""
        specials = SpecialTokens.of(special_tokens)
        ids = numbers_of(vocab)
        check_contiguous(list(vocab))
        missing = [name for name in specials.names if name not in ids]
        if missing:
            raise UserError(f"the vocabulary lacks the special token {missing[0]!r}")
        self.vocab = vocab
        super().__init__(specials, {name: ids.pop(name) for name in specials.names})
        self._table = _Table(ids, self.unk_id)
        self._written = dict.fromkeys(self._special_names, b"")
        self._written |= {token: encode_utf8(name) for name, token in ids.items()}

    def _vocab_with(self, specials: SpecialTokens) -> dict[int, str]:
        """The vocabulary, and at its end the special tokens that it lacks."""
        new = [name for name in specials.names if name not in self.special_ids]
        return self.vocab | dict(enumerate(new, len(self.vocab)))

    @abstractmethod
    def _frame(self) -> Json:
        """tokenizer.json without its tables."""

    def _to_json(self) -> Json:
        # `tokenizers` has no table without an unk token. No piece is "", so there an unknown piece fails too.
        tables = {"vocab": {name: i for i, name in self.vocab.items()}, "unk_token": self.specials.unk or ""}
        return fill_frame(self._frame(), self.special_ids, tables)


def _read(directory: str | Path, what: str) -> tuple[Path, Json]:
    path = Path(directory) / "tokenizer.json"
    content = read_json(path)
    with reading(path, what):
        if content["model"]["type"] != "WordLevel":
            raise UserError(f"its model is {content['model']['type']}")
    return path, content


def _vocab(content: Json) -> dict[int, str]:
    ids = content["model"]["vocab"] | special_ids_from(content)
    return {token: name for name, token in ids.items()}


def _ordered(specials: SpecialTokens, pieces: Iterable[str]) -> dict[int, str]:
    return dict(enumerate((*specials.names, *pieces)))


class CharTokenizer(TableTokenizer):
    """One token per character (Unicode code point)."""

    @classmethod
    def train(
        cls,
        texts_or_paths: Texts,
        *,
        special_tokens: SpecialTokens | Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Special tokens first (none with `special_tokens=[]`), then every character by code point."""
        specials = SpecialTokens.of(special_tokens)
        splitter, seen, done = SpecialSplitter(specials.names), set[str](), 0
        pieces = chain.from_iterable(regroup(document, specials.names) for document in read_documents(texts_or_paths))
        for texts in grouped(pieces, BATCH):
            seen.update(*plain_pieces(texts, splitter))
            done += sum(map(len, texts))
            if progress:
                progress("reading", done, 0)
        return cls(_ordered(specials, sorted(seen)), specials)

    def _encode_plain(self, text: str) -> list[int]:
        return list(map(self._table.__getitem__, text))

    def _with_specials(self, specials: SpecialTokens) -> Self:
        return type(self)(self._vocab_with(specials), specials)

    def _frame(self) -> Json:
        return _CHAR_FRAME

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        path, content = _read(directory, "character tokenizer")
        with reading(path, "character tokenizer"):
            specials = read_specials(path.parent, tuple(special_ids_from(content)))
            if not cls.can_read(content):
                raise UserError("it does not cut text into characters")
            return cls(_vocab(content), specials)._beginning_as(content)

    @staticmethod
    def can_read(content: Json) -> bool:
        """Whether a tokenizer.json is of the kind that `load` reads, going by its settings."""
        return frame_of(content, _TABLES) == _CHAR_FRAME


class WordTokenizer(TableTokenizer):
    """One token per word. A word brings along the space before it, so that decoding needs no guessing."""

    def __init__(
        self,
        vocab: dict[int, str],
        special_tokens: SpecialTokens | Sequence[str] = (),
        rules: TextRules | None = None,
    ) -> None:
        super().__init__(vocab, special_tokens)
        self.rules = rules or TextRules(lowercase=True)

    @classmethod
    def train(
        cls,
        texts_or_paths: Texts,
        vocab_size: int,
        *,
        lowercase: bool = True,
        special_tokens: SpecialTokens | Sequence[str] | None = None,
        min_frequency: int = 1,
        workers: int = 1,
        progress: Progress | None = None,
    ) -> Self:
        """Special tokens, then the commonest words (of equals the first by alphabet): `vocab_size` in all.

        Several `workers` count the words of a large text sooner; the result does not depend on them.
        """
        specials, rules = SpecialTokens.of(special_tokens), TextRules(lowercase=lowercase)
        room = vocab_size - len(specials.names)
        if room < 1:
            raise UserError(f"a vocabulary of {vocab_size} has no room beside {len(specials.names)} special tokens")
        counts: Counter[str] = count_words(texts_or_paths, rules, specials.names, progress, workers)
        frequent = (word for word in counts if counts[word] >= min_frequency)
        words = sorted(frequent, key=lambda word: (-counts[word], word))
        return cls(_ordered(specials, words[:room]), specials, rules)

    def _encode_plain(self, text: str) -> list[int]:
        return [self._table[word] for piece in regroup((text,)) for word in self.rules.words(piece)]

    def _with_specials(self, specials: SpecialTokens) -> Self:
        return type(self)(self._vocab_with(specials), specials, self.rules)

    def _frame(self) -> Json:
        return _word_frame(self.rules)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        path, content = _read(directory, "word tokenizer")
        with reading(path, "word tokenizer"):
            specials = read_specials(path.parent, tuple(special_ids_from(content)))
            rules = find_rules(frame_of(content, _TABLES), _word_frame)
            if rules is None:
                raise UserError("it cuts text in a way of its own")
            return cls(_vocab(content), specials, rules)._beginning_as(content)

    @staticmethod
    def can_read(content: Json) -> bool:
        """Whether a tokenizer.json is of the kind that `load` reads, going by its settings."""
        return find_rules(frame_of(content, _TABLES), _word_frame) is not None


_TABLES = ("vocab", "unk_token")
_CHAR_FRAME = frame_json(None, split_json(r"[\s\S]"), {"type": "Fuse"}, {"type": "WordLevel"})


def _word_frame(rules: TextRules) -> Json:
    pre_tokenizer = split_json(STANDARD_PATTERNS[rules.pattern])
    return frame_json(normalizer_json(rules), pre_tokenizer, {"type": "Fuse"}, {"type": "WordLevel"})
