"""Byte-level byte-pair encoding: every byte is a token, and frequent runs of bytes are tokens too.

Sennrich et al. 2016 brought byte-pair encoding to language models, Radford et al. 2019 (GPT-2) based it on
bytes, so that no text is unknown and every byte string survives encoding and decoding. Training is in
`bpe_training.py`.
"""

import heapq
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Self

from ..errors import UserError
from .base import Tokenizer, check_contiguous, check_id
from .bpe_training import MergeLimits, Progress, Texts, count_words, learn_merges
from .byte_level import byte_level_json, from_written, merge_from_json, pre_tokenizer_json, to_written
from .files import (
    Json,
    fill_frame,
    find_rules,
    frame_json,
    frame_of,
    normalizer_json,
    read_json,
    read_specials,
    read_text,
    reading,
    special_ids_from,
)
from .special import SpecialTokens
from .splitting import NormalForm, PatternName, TextRules, encode_utf8, regroup

_NEVER = 1 << 60  # the rank of a pair that does not merge


class ByteBPE(Tokenizer):
    """A byte-level BPE tokenizer.

    `vocab` maps each id to the bytes it writes (a special token: to its name), `merges` lists the merged
    pairs, first learned first. The encoder applies the earliest learned merge that fits, leftmost first, as
    tiktoken and `tokenizers` do.
    """

    vocab: dict[int, bytes]
    merges: list[tuple[bytes, bytes]]

    def __init__(
        self,
        vocab: dict[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: SpecialTokens | Sequence[str] = (),
        rules: TextRules | None = None,
    ) -> None:
        """Ids of `vocab` are 0 to n - 1. Special tokens that it lacks are added at its end.

        Raises ValueError if a byte has no token, a merge uses or makes a token that is not there, or two
        tokens are equal.
        """
        specials = SpecialTokens.of(special_tokens)
        ids = {name: token for token, name in vocab.items()}
        if len(ids) < len(vocab):
            twice = next(name for token, name in vocab.items() if ids[name] != token)
            raise UserError(f"two tokens of the vocabulary are the same: {twice!r}")
        for name in specials.names:
            ids.setdefault(name.encode(), len(ids))
        check_contiguous(list(ids.values()))
        self.vocab = {token: name for name, token in sorted(ids.items(), key=lambda item: item[1])}
        self.merges = list(merges)
        self.rules = rules or TextRules()
        super().__init__(specials, {name: ids.pop(name.encode()) for name in specials.names})
        self._written = {i: b"" if i in self._special_names else name for i, name in self.vocab.items()}
        self._set_tables(ids)

    def _set_tables(self, ids: dict[bytes, int]) -> None:
        """What encoding looks things up in; `ids` are the tokens that are not special."""
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            raise UserError(f"the vocabulary has no token for {len(missing)} bytes, such as {missing[0]:#04x}")
        self._byte_ids = [ids[bytes([byte])] for byte in range(256)]
        self._ranks: dict[tuple[int, int], int] = {}
        self._products: list[int] = []  # rank -> the token that the merge makes
        for rank, (first, second) in enumerate(self.merges):
            try:
                self._products.append(ids[first + second])
                self._ranks.setdefault((ids[first], ids[second]), rank)
            except KeyError as error:
                raise UserError(
                    f"merge {rank} ({first!r} + {second!r}) needs the token {error.args[0]!r}, "
                    "which is not an ordinary token of the vocabulary"
                ) from None
        self._words = _WordCache(self._encode_word)

    # ------------------------------------------------------------------ training
    @classmethod
    def train(
        cls,
        texts_or_paths: Texts,
        vocab_size: int,
        *,
        special_tokens: SpecialTokens | Sequence[str] | None = None,
        min_frequency: int = 2,
        max_token_length: int | None = None,
        pattern: PatternName = "gpt2",
        normalize: NormalForm | None = None,
        lowercase: bool = False,
        progress: Progress | None = None,
    ) -> Self:
        """Learn a vocabulary of `vocab_size` tokens: special tokens first, then the 256 bytes, then merges.

        A pair must occur `min_frequency` times to become a token (by default 2: what occurs once is learned
        by heart), and no token is longer than `max_token_length` bytes. Where the text runs out of such
        pairs, the tokenizer has fewer tokens than asked for, and a warning says how many.
        """
        specials = SpecialTokens.of(special_tokens)
        rules = TextRules(pattern, normalize, lowercase)
        first_merge = len(specials.names) + 256
        if vocab_size < first_merge:
            raise UserError(
                f"a vocabulary of {vocab_size} is too small for {len(specials.names)} special tokens "
                f"and the 256 bytes; it needs at least {first_merge}"
            )
        limits = MergeLimits(vocab_size - first_merge, min_frequency, max_token_length)
        counts = count_words(texts_or_paths, rules, specials.names, progress)
        merges = learn_merges(counts, limits, progress)
        names = [*(name.encode() for name in specials.names), *(bytes([byte]) for byte in range(256))]
        names += [first + second for first, second in merges]
        tokenizer = cls(dict(enumerate(names)), merges, specials, rules)
        if tokenizer.vocab_size < vocab_size:
            short = f"the vocabulary has {tokenizer.vocab_size} tokens, not {vocab_size}"
            warnings.warn(f"{short}: the text has no more pairs that are frequent enough", stacklevel=2)
        return tokenizer

    # ------------------------------------------------------------------ text to ids
    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in regroup((text,)):
            ids += chain.from_iterable(map(self._words.__getitem__, self.rules.words(piece)))
        return ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        ids = [self._byte_ids[byte] for byte in encode_utf8(word)]
        if len(ids) > 200:
            return tuple(self._merge_long(ids))
        # All in place: `min` and `index` run at C speed, and a word has few bytes.
        rank_of, ranks = self._ranks.get, [self._ranks.get(pair, _NEVER) for pair in pairwise(ids)]
        while ranks and (best := min(ranks)) != _NEVER:
            i = ranks.index(best)
            ids[i : i + 2] = [self._products[best]]
            del ranks[i]
            if i:
                ranks[i - 1] = rank_of((ids[i - 1], ids[i]), _NEVER)
            if i < len(ranks):
                ranks[i] = rank_of((ids[i], ids[i + 1]), _NEVER)
        return tuple(ids)

    def _merge_long(self, ids: list[int]) -> list[int]:
        """The same in n log n time: a heap of (rank, place) over the tokens as a linked list."""
        left, right = list(range(-1, len(ids) - 1)), list(range(1, len(ids) + 1))
        heap = [(self._ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in self._ranks]
        heapq.heapify(heap)
        ids.append(-1)  # an end that merges with nothing; a swallowed token becomes -1 too

        def push(i: int) -> None:
            rank = self._ranks.get((ids[i], ids[right[i]])) if i >= 0 else None
            if rank is not None:
                heapq.heappush(heap, (rank, i))

        while heap:
            rank, i = heapq.heappop(heap)
            if ids[i] < 0 or self._ranks.get((ids[i], ids[right[i]])) != rank:
                continue  # another merge was here since
            swallowed = right[i]
            ids[i], ids[swallowed] = self._products[rank], -1
            right[i] = right[swallowed]
            if right[i] < len(left):
                left[right[i]] = i
            push(i)
            push(left[i])
        return [token for token in ids if token >= 0]

    # ------------------------------------------------------------------ ids to text
    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    def token_bytes(self, token_id: int) -> bytes:
        try:
            return self._written[token_id]
        except KeyError:
            raise check_id(token_id, self.vocab_size) from None

    # ------------------------------------------------------------------ files
    @classmethod
    def from_gpt2(
        cls,
        vocab_json: str | Path,
        merges_txt: str | Path,
        special_tokens: SpecialTokens | Sequence[str] = ("<|endoftext|>",),
    ) -> Self:
        """GPT-2's tokenizer from OpenAI's two files; special tokens that they lack are added at the end."""
        specials, names = SpecialTokens.of(special_tokens), read_json(Path(vocab_json))
        lines = read_text(Path(merges_txt)).split("\n")
        if lines[0].startswith("#version"):
            del lines[0]
        with reading(Path(merges_txt), f"byte-level BPE of {vocab_json}"):
            vocab = {token: from_written(name, specials.names) for name, token in names.items()}
            return cls(vocab, [merge_from_json(line) for line in lines if line.strip("\r")], specials)

    def _to_json(self) -> Json:
        written = {self._special_names.get(i) or to_written(name): i for i, name in self.vocab.items()}
        if len(written) < len(self.vocab):
            raise UserError("a special token is written like an ordinary one; give it another name")
        merges = [[to_written(first), to_written(second)] for first, second in self.merges]
        return fill_frame(_frame(self.rules), self.special_ids, {"vocab": written, "merges": merges})

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        path = Path(directory) / "tokenizer.json"
        content = read_json(path)
        with reading(path, "byte-level BPE tokenizer"):
            special_ids, model = special_ids_from(content), content["model"]
            vocab = {token: from_written(name, special_ids) for name, token in model["vocab"].items()}
            vocab |= {token: name.encode() for name, token in special_ids.items()}
            merges = [merge_from_json(merge) for merge in model["merges"]]
            rules = find_rules(frame_of(content, _TABLES), _frame)
            if rules is None:
                raise UserError("it cuts text in a way of its own")
            return cls(vocab, merges, read_specials(path.parent, tuple(special_ids)), rules)

    @staticmethod
    def can_read(content: Json) -> bool:
        """Whether a tokenizer.json is of the kind that `load` reads, going by its settings."""
        return find_rules(frame_of(content, _TABLES), _frame) is not None


_TABLES = ("vocab", "merges")


def _frame(rules: TextRules) -> Json:
    model: Json = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    return frame_json(normalizer_json(rules), pre_tokenizer_json(rules), byte_level_json(use_regex=True), model)


class _WordCache(dict[str, tuple[int, ...]]):
    """Word to ids, worked out once. Emptied when full, since some text never repeats; it stays under 6 MB."""

    def __init__(self, encode_word: Callable[[str], tuple[int, ...]], limit: int = 1 << 15) -> None:
        super().__init__()
        self._encode_word, self._limit = encode_word, limit

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._encode_word(word)
        if len(word) <= 40:
            if len(self) >= self._limit:
                self.clear()
            self[word] = ids
        return ids
