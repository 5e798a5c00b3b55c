"""Longest match: inside a word always the longest token that fits, found in a prefix tree.

It is how WordPiece encodes (Devlin et al. 2019), here over bytes and with a vocabulary that BPE has learned. It is
*not* BPE, which applies its merges in the order in which they were learned. With the merges "b c" and then "a b",
BPE makes "a" + "bc" of "abc"; the longest match makes "ab" + "c". Both spell the same text, but to a model that was
trained on the one, the other is a language that it has seldom seen. So it is a way of its own to train a model with,
and no quick way to use a BPE vocabulary. Often it needs a little fewer tokens than BPE, sometimes more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from ..errors import UserError
from .bpe import ByteBPE
from .byte_level import (
    ByteLevelTokenizer,
    byte_level_json,
    is_written,
    pre_tokenizer_json,
    vocab_from_json,
)
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
)
from .special import SpecialTokens
from .splitting import TextRules, encode_utf8, split_words
from .trie import Trie


class LongestMatchTokenizer(ByteLevelTokenizer):
    """A tokenizer over bytes that takes the longest token of its vocabulary, again and again, inside each word."""

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        special_tokens: SpecialTokens | Sequence[str] = (),
        rules: TextRules | None = None,
        *,
        cache_size: int = 1 << 15,
    ) -> None:
        """Ids of `vocab` are 0 to n - 1. Special tokens that it lacks are added at its end.

        cache_size: words, see `ByteLevelTokenizer.cache_size`.

        Raises:
            UserError: a byte has no token, two tokens are equal, or a special token could be part of a word.
        """
        super().__init__(vocab, special_tokens, rules, cache_size)
        for name in self.specials.names:
            self._check_special(name)
        self._trie = Trie(self._ids)

    @classmethod
    def from_bpe(cls, bpe: ByteBPE) -> Self:
        """One with the vocabulary that byte-level BPE has learned."""
        return cls(bpe.vocab, bpe.specials, bpe.rules, cache_size=bpe.cache_size)

    def _check_special(self, name: str) -> None:
        # WordPiece files special tokens among the others. It finds this one in plain text, too, if a word can hold it.
        if is_written(name) and len(split_words(name, self.rules.pattern)) == 1:
            raise UserError(
                f"the special token {name!r} could be part of a word, which longest match does not allow; "
                f"give it a name such as '<|{name.strip('<|>')}|>'"
            )

    def _encode_word(self, word: str) -> tuple[int, ...]:
        spelled, start = encode_utf8(word), 0
        ids: list[int] = []
        while start < len(spelled):
            token = self._trie.longest(spelled, start)
            assert token is not None, "every byte is a token"
            ids.append(self._ids[token])
            start += len(token)
        return tuple(ids)

    # ------------------------------------------------------------------ files
    def _to_json(self) -> Json:
        tables = {"vocab": self._vocab_json(), "unk_token": self.specials.unk or ""}
        return fill_frame(_frame(self.rules), self.special_ids, tables)

    def _with_specials(self, specials: SpecialTokens) -> Self:
        return type(self)(self.vocab, specials, self.rules, cache_size=self.cache_size)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        path = Path(directory) / "tokenizer.json"
        content = read_json(path)
        with reading(path, "longest-match tokenizer"):
            rules = find_rules(frame_of(content, _TABLES), _frame)
            if rules is None:
                raise UserError("it matches or cuts text in a way of its own")
            specials = read_specials(path.parent, tuple(special_ids_from(content)))
            return cls(vocab_from_json(content), specials, rules)._beginning_as(content)

    @staticmethod
    def can_read(content: Json) -> bool:
        """Whether a tokenizer.json is of the kind that `load` reads, going by its settings."""
        return find_rules(frame_of(content, _TABLES), _frame) is not None


_TABLES = ("vocab", "unk_token")


def _frame(rules: TextRules) -> Json:
    # Longer words than that would be unknown to WordPiece; none is.
    model: Json = {"type": "WordPiece", "continuing_subword_prefix": "", "max_input_chars_per_word": 1 << 53}
    return frame_json(normalizer_json(rules), pre_tokenizer_json(rules), byte_level_json(use_regex=True), model)
