"""A prefix tree over strings, used to find special tokens in text.

Why not use it for everything? Walking a trie and always taking the longest vocabulary entry (greedy longest
match, as in WordPiece, Devlin et al. 2019) is *not* byte-pair encoding: BPE applies its merges in the order
they were learned. With the merges "b c" and then "a b", BPE splits "abc" into "a" + "bc"; the longest match
takes "ab" + "c". Both spell the same text, but a model trained on the one has never seen the other. A special
token has no inner structure, so for those the longest match is exact: tokens that contain each other resolve
to the longest, which is also what Hugging Face's `tokenizers` does.
"""

import re
from collections.abc import Iterable, Iterator


class Trie:
    """A set of words that answers: which is the longest word that starts here?

    Each node is a dict from a character to the next node; the key "" marks a node where a word ends.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.root: dict[str, dict] = {}
        for word in words:
            node = self.root
            for character in word:
                node = node.setdefault(character, {})
            node[""] = {}

    def longest(self, text: str, start: int = 0) -> str | None:
        """The longest word that `text` holds at `start`, or None."""
        node, end = self.root, None
        for position in range(start, len(text)):
            following = node.get(text[position])
            if following is None:
                break
            node = following
            if "" in node:
                end = position + 1
        return None if end is None else text[start:end]


class SpecialSplitter:
    """Cuts text into special tokens and plain text: leftmost first, the longest where several start."""

    def __init__(self, tokens: Iterable[str]) -> None:
        tokens = tuple(tokens)
        self.trie = Trie(tokens)
        # The trie is only asked where a token can start; `re` finds those places at C speed.
        firsts = "".join(sorted({re.escape(token[0]) for token in tokens}))
        self._candidate = re.compile(f"[{firsts}]") if tokens else None

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
