"""Learning byte-pair merges: count words, then join the commonest pair of tokens, again and again.

The algorithm is that of Sennrich et al. 2016, over bytes as in GPT-2 (Radford et al. 2019). Three things make
it quick without changing the result: equal words are counted once; a merge visits only the places where its
pair stands; and the commonest pair comes from a heap that is put right lazily.
"""

import heapq
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

from ..errors import UserError
from ..workers import map_ordered
from .splitting import TextRules, encode_utf8, grouped, regroup
from .trie import SpecialSplitter

Pair = tuple[int, int]
Texts = str | Path | Iterable[str | Path]
"""A `str` is a text, a `Path` a UTF-8 text file that is streamed; or any number of them."""
Progress = Callable[[str, int, int], None]
"""Called with a stage ("reading" or "merging"), how much is done (characters; merges), and how much there is (0 if
not known)."""

BATCH = 1 << 21
"""Characters that are counted at a time."""
_BORDER, _GONE = -1, -2
_COMPLEMENT = {byte: 255 - byte for byte in range(256)}


@dataclass(frozen=True)
class MergeLimits:
    """Stop after `new_tokens`, or at pairs rarer than `min_frequency`; `max_token_length` is in bytes."""

    new_tokens: int
    min_frequency: int = 1
    max_token_length: int | None = None

    def __post_init__(self) -> None:
        if self.min_frequency < 1:
            raise UserError(f"min_frequency must be at least 1, not {self.min_frequency}")
        if self.max_token_length is not None and self.max_token_length < 1:
            raise UserError(f"max_token_length must be at least 1 byte, not {self.max_token_length}")


def read_documents(source: Texts) -> Iterator[Iterator[str]]:
    """Each document as an iterator of chunks; a file is read a million characters at a time."""
    for item in (source,) if isinstance(source, str | Path) else source:
        yield _read_file(item) if isinstance(item, Path) else iter((item,))


def _read_file(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            while chunk := file.read(1 << 20):
                yield chunk
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None


def plain_pieces(texts: Iterable[str], splitter: SpecialSplitter) -> Iterator[str]:
    """The texts without the special tokens in them, in pieces."""
    for text in texts:
        for piece, is_special in splitter.split(text):
            if not is_special:
                yield piece


def count_words(
    source: Texts,
    rules: TextRules,
    special_tokens: Iterable[str] = (),
    progress: Progress | None = None,
    workers: int = 1,
) -> Counter[str]:
    """How often each word occurs. Special tokens in the text are left out, and no word reaches across one.

    The text is shared out among `workers` processes at word borders, so the counts do not depend on them.
    """
    specials = tuple(special_tokens)
    pieces = chain.from_iterable(regroup(document, specials) for document in read_documents(source))
    counts: Counter[str] = Counter()
    done = 0
    state = rules, SpecialSplitter(specials)
    for found, size in map_ordered(_count, state, grouped(pieces, BATCH), workers):
        counts.update(found)
        done += size
        if progress:
            progress("reading", done, 0)
    return counts


def _count(how: tuple[TextRules, SpecialSplitter], texts: list[str]) -> tuple[Counter[str], int]:
    """The words of some text, and its size in characters."""
    rules, splitter = how
    counts: Counter[str] = Counter()
    for piece in plain_pieces(texts, splitter):
        counts.update(rules.words(piece))
    return counts, sum(map(len, texts))


class _Corpus:
    """All distinct words laid end to end, as linked lists of tokens, with every pair's total and whereabouts.

    `token[i]` is the token that starts at place i, `left[i]` and `right[i]` the places of its neighbours,
    `weight[i]` how often the word occurs. A token that is swallowed by a merge leaves its place behind,
    marked `_GONE`. Arrays take a fifth of the memory of lists of as many different numbers, and less time.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self.token: list[int] = [_BORDER]
        self.weight: list[int] = [0]
        for word, count in counts.items():
            spelled = encode_utf8(word)
            self.token += spelled
            self.token.append(_BORDER)
            self.weight += [count] * (len(spelled) + 1)
        places = len(self.token)
        self.left = array("q", range(-1, places - 1))
        self.right = array("q", range(1, places + 1))
        self.total: defaultdict[Pair, int] = defaultdict(int)
        self.places: defaultdict[Pair, array[int]] = defaultdict(lambda: array("q"))
        for place, pair in enumerate(pairwise(self.token)):
            if pair[0] >= 0 and pair[1] >= 0:
                self.total[pair] += self.weight[place]
                self.places[pair].append(place)

    def merge(self, pair: Pair, new: int) -> set[Pair]:
        """Replace `pair` by `new` wherever it stands; return the pairs that became more frequent."""
        token, left, right, total, places = self.token, self.left, self.right, self.total, self.places
        first, second = pair
        grown: set[Pair] = set()
        for here in sorted(places.pop(pair)):  # left to right, because "aaa" holds "aa" at two places
            there = right[here]
            if token[here] != first or token[there] != second:
                continue  # another merge was here since
            weight, before, after = self.weight[here], left[here], right[there]
            token[here], token[there] = new, _GONE
            right[here], left[after] = after, here
            if (neighbour := token[before]) >= 0:
                total[neighbour, first] -= weight
                total[neighbour, new] += weight
                places[neighbour, new].append(before)
                grown.add((neighbour, new))
            if (neighbour := token[after]) >= 0:
                total[second, neighbour] -= weight
                total[new, neighbour] += weight
                places[new, neighbour].append(here)
                grown.add((new, neighbour))
        del total[pair]
        return grown


class _Queue:
    """Hands out the commonest pair; of equally common ones the lexicographically greatest pair of strings.

    A pair's total grows only in the merge that makes one of its tokens, right after which it is pushed. Later
    merges only lower it, so an old entry is too high, never too low: putting it right when it surfaces keeps
    the order exact.
    """

    def __init__(self, corpus: _Corpus, limits: MergeLimits) -> None:
        self.corpus, self.limits = corpus, limits
        self.spelling: list[bytes] = []  # token -> its bytes
        # Token -> a string that sorts the other way round, for ties: the heap gives its smallest entry first.
        self._backwards: list[str] = []
        for byte in range(256):
            self.add_token(bytes([byte]))
        self._heap = [self._entry(pair) for pair in corpus.total if self._allowed(pair)]
        heapq.heapify(self._heap)

    def add_token(self, spelling: bytes) -> None:
        self.spelling.append(spelling)
        # The last character is greater than any complement: "ab" is greater than "a", so it comes before.
        self._backwards.append(spelling.decode("latin-1").translate(_COMPLEMENT) + "\u0100")

    def push(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            if self._allowed(pair):
                heapq.heappush(self._heap, self._entry(pair))

    def pop(self) -> Pair | None:
        """The best pair there is, or None if none is within the limits."""
        while self._heap:
            total, _, _, pair = heapq.heappop(self._heap)
            if -total == self.corpus.total[pair]:
                return pair
            self.push([pair])
        return None

    def _entry(self, pair: Pair) -> tuple[int, str, str, Pair]:
        return -self.corpus.total[pair], self._backwards[pair[0]], self._backwards[pair[1]], pair

    def _allowed(self, pair: Pair) -> bool:
        if self.corpus.total[pair] < self.limits.min_frequency:
            return False
        longest = self.limits.max_token_length
        return longest is None or len(self.spelling[pair[0]]) + len(self.spelling[pair[1]]) <= longest


def learn_merges(
    counts: Counter[str], limits: MergeLimits, progress: Progress | None = None
) -> list[tuple[bytes, bytes]]:
    """The merges in the order they are learned: always the commonest pair, see `_Queue` for ties.

    A pair that overlaps itself counts at each place ("aaa" holds "aa" twice). No two merges make the same
    bytes: equal bytes with unmerged surroundings are cut alike everywhere, so one merge gets them all.
    """
    corpus = _Corpus(counts)
    queue = _Queue(corpus, limits)
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < limits.new_tokens and (pair := queue.pop()):
        parts = queue.spelling[pair[0]], queue.spelling[pair[1]]
        queue.add_token(parts[0] + parts[1])
        queue.push(corpus.merge(pair, len(queue.spelling) - 1))
        merges.append(parts)
        if progress and len(merges) % 100 == 0:
            progress("merging", len(merges), limits.new_tokens)
    return merges
