"""Byte-level byte-pair encoding: every byte is a token, and frequent runs of bytes are tokens too.

Sennrich et al. 2016 brought byte-pair encoding to language models, Radford et al. 2019 (GPT-2) based it on
bytes, so that no text is unknown and every byte string survives encoding and decoding. Training is in
`bpe_training.py`.
"""

import heapq
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

from ..errors import UserError
from .bpe_training import MergeLimits, Progress, Texts, count_words, learn_merges
from .byte_level import (
    ByteLevelTokenizer,
    byte_level_json,
    from_written,
    merge_from_json,
    pre_tokenizer_json,
    to_written,
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
    read_text,
    reading,
    special_ids_from,
)
from .special import SpecialTokens
from .splitting import NormalForm, PatternName, TextRules, encode_utf8

_NEVER = 1 << 60  # the rank of a pair that does not merge
_SHORT = 200  # bytes: up to here looking through all pairs again and again is quicker than a heap


class ByteBPE(ByteLevelTokenizer):
    """A byte-level BPE tokenizer.

    `vocab` maps each id to the bytes it writes (a special token: to its name), `merges` lists the merged
    pairs, first learned first. The encoder applies the earliest learned merge that fits, leftmost first, as
    tiktoken and `tokenizers` do.
    """

    merges: list[tuple[bytes, bytes]]

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: SpecialTokens | Sequence[str] = (),
        rules: TextRules | None = None,
        *,
        cache_size: int = 1 << 15,
    ) -> None:
        """Ids of `vocab` are 0 to n - 1. Special tokens that it lacks are added at its end.

        cache_size: words, see `ByteLevelTokenizer.cache_size`.

        Raises:
            UserError: a byte has no token, a merge uses or makes a token that is not there, two tokens are equal.
        """
        super().__init__(vocab, special_tokens, rules, cache_size)
        self.merges = list(merges)
        self._byte_ids = [self._ids[bytes([byte])] for byte in range(256)]
        self._ranks: dict[tuple[int, int], int] = {}
        self._products: list[int] = []  # rank -> the token that the merge makes
        for rank, (first, second) in enumerate(self.merges):
            try:
                self._products.append(self._ids[first + second])
                self._ranks.setdefault((self._ids[first], self._ids[second]), rank)
            except KeyError as error:
                raise UserError(
                    f"merge {rank} ({first!r} + {second!r}) needs the token {error.args[0]!r}, "
                    "which is not an ordinary token of the vocabulary"
                ) from None
        self._block = max(64, *map(len, self._ids))  # bytes; no shorter than a token, so that few reach across

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
        workers: int = 1,
        progress: Progress | None = None,
    ) -> Self:
        """Learn a vocabulary of `vocab_size` tokens: special tokens first, then the 256 bytes, then merges.

        A pair must occur `min_frequency` times to become a token (by default 2: what occurs once is learned
        by heart), and no token is longer than `max_token_length` bytes. Where the text runs out of such
        pairs, the tokenizer has fewer tokens than asked for, and a warning says how many. Several `workers`
        count the words of a large text sooner; what is learned does not depend on them.
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
        counts = count_words(texts_or_paths, rules, specials.names, progress, workers)
        merges = learn_merges(counts, limits, progress)
        names = [*(name.encode() for name in specials.names), *(bytes([byte]) for byte in range(256))]
        names += [first + second for first, second in merges]
        tokenizer = cls(dict(enumerate(names)), merges, specials, rules)
        if tokenizer.vocab_size < vocab_size:
            short = f"the vocabulary has {tokenizer.vocab_size} tokens, not {vocab_size}"
            warnings.warn(f"{short}: the text has no more pairs that are frequent enough", stacklevel=2)
        return tokenizer

    # ------------------------------------------------------------------ text to ids
    def _encode_word(self, word: str) -> tuple[int, ...]:
        """Block by block: then a word of any length takes linear time, and little memory beside its ids."""
        spelled = encode_utf8(word)
        ids = self._merge(spelled[: self._block])
        for start in range(self._block, len(spelled), self._block):
            self._join(ids, self._merge(spelled[start : start + self._block]))
        return tuple(ids)

    def _join(self, left: list[int], right: list[int]) -> None:
        """Append `right` to `left`, both encoded, so that the whole is as if it had been encoded at once.

        Tokens are what BPE makes of their bytes exactly if each two neighbours are what it makes of theirs: up to
        the first merge across a border, either side changes just as it would beside that one neighbour. So only a
        seam in the middle is encoded anew, wider and wider, until it stays as it is beside both of its neighbours.
        """
        width = 0
        while True:
            cut = max(len(left) - width, 0)
            seam = self._merge(self.decode_bytes(left[cut:] + right[:width]))
            line = [*left[cut - 1 : cut], *seam, *right[width : width + 1]]
            if all(self._merge(self.decode_bytes(pair)) == pair for pair in (line[:2], line[-2:])):
                break
            width = 2 * width or 1
        left[cut:] = seam
        left += right[width:]

    def _merge(self, spelled: bytes) -> list[int]:
        ids = [self._byte_ids[byte] for byte in spelled]
        if len(ids) > _SHORT:
            return self._merge_long(ids)
        # All in place: `min` and `index` run at C speed, and there are few bytes.
        rank_of, ranks = self._ranks.get, [self._ranks.get(pair, _NEVER) for pair in pairwise(ids)]
        while ranks and (best := min(ranks)) != _NEVER:
            i = ranks.index(best)
            ids[i : i + 2] = [self._products[best]]
            del ranks[i]
            if i:
                ranks[i - 1] = rank_of((ids[i - 1], ids[i]), _NEVER)
            if i < len(ranks):
                ranks[i] = rank_of((ids[i], ids[i + 1]), _NEVER)
        return ids

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
            merges = [merge_from_json(line) for line in lines if line.strip("\r")]
            made = {first + second for first, second in merges}
            for name in vocab.values():
                if len(name) > 1 and name not in made and not (name.startswith(b"<") and name.endswith(b">")):
                    raise UserError(f"no merge makes the token {name!r}, so the file is cut short")
            return cls(vocab, merges, specials)

    def _to_json(self) -> Json:
        merges = [[to_written(first), to_written(second)] for first, second in self.merges]
        return fill_frame(_frame(self.rules), self.special_ids, {"vocab": self._vocab_json(), "merges": merges})

    def _with_specials(self, specials: SpecialTokens) -> Self:
        return type(self)(self.vocab, self.merges, specials, self.rules, cache_size=self.cache_size)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        path = Path(directory) / "tokenizer.json"
        content = read_json(path)
        with reading(path, "byte-level BPE tokenizer"):
            vocab, special_ids = vocab_from_json(content), special_ids_from(content)
            merges = [merge_from_json(merge) for merge in content["model"]["merges"]]
            rules = find_rules(frame_of(content, _TABLES), _frame)
            if rules is None:
                raise UserError("it cuts text in a way of its own")
            specials = read_specials(path.parent, tuple(special_ids))
            return cls(vocab, merges, specials, rules)._beginning_as(content)

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
