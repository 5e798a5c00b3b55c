"""A prefix tree over strings or byte strings: it finds special tokens in text, and the longest token in a word.

Why not encode everything with it? Walking a trie and always taking the longest vocabulary entry (greedy longest
match, as in WordPiece, Devlin et al. 2019) is *not* byte-pair encoding, see `longest.py`. A special token has no
inner structure, so for those the longest match is exact: tokens that contain each other resolve to the longest,
which is also what Hugging Face's `tokenizers` does.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

Word = TypeVar("Word", str, bytes)
_END = None  # the key that marks a node where a word ends


class Trie(Generic[Word]):
    """A set of words that answers: which is the longest word that starts here?

    Each node is a dict from a character (or byte) to the next node.
    """

    def __init__(self, words: Iterable[Word]) -> None:
        self.words = tuple(words)
        self.root: dict[Any, dict] = {}
        for word in self.words:
            node = self.root
            for character in word:
                node = node.setdefault(character, {})
            node[_END] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.words,)  # to another process go the words: a tree nests as deep as a word is long

    def longest(self, text: Word, start: int = 0) -> Word | None:
        """The longest word that `text` holds at `start`, or None."""
        node, end = self.root, None
        for position in range(start, len(text)):
            following = node.get(text[position])
            if following is None:
                break
            node = following
            if _END in node:
                end = position + 1
        return None if end is None else text[start:end]


class SpecialSplitter:
    """Cuts text into special tokens and plain text: leftmost first, the longest where several start."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.trie = Trie(tokens)
        # The trie is only asked where a token can start; `re` finds those places at C speed.
        firsts = "".join(sorted({re.escape(token[0]) for token in self.trie.words}))
        self._candidate = re.compile(f"[{firsts}]") if firsts else None

    def split(self, text: str) -> Iterator[tuple[str, bool]]:
        """Yield (piece, is_special) in order; the pieces joined give `text`, and none is empty."""
        done = position = 0
        while self._candidate and (candidate := self._candidate.search(text, position)):
            start = candidate.start()
            token = self.trie.longest(text, start)
            if token is None:
                position = start + 1
                continue
            if start > done:
                yield text[done:start], False
            yield token, True
            done = position = start + len(token)
        if done < len(text):
            yield text[done:], False
