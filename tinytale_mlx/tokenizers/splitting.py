r"""From text to words (pre-tokens), the pieces inside which byte pairs may merge. Needs only Python's `re`.

The two patterns are GPT-2's (Radford et al. 2019) and GPT-4's (tiktoken's cl100k_base). Both speak of Unicode
letters `\p{L}` and numbers `\p{N}`, which `re` lacks: its nearest classes treat "³", "½" and "Ⅷ" as letters
and \x1c to \x1f as spaces. So each pattern exists three times, all with the same answer where they apply: one
for ASCII text, a quick one for text without those few characters, and an exact one for the rest. Letters are
those of this Python's `unicodedata` (14.0 in Python 3.11); a letter added to Unicode later splits differently
in `tokenizers`, which ships newer tables.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import UserError

PatternName = Literal["gpt2", "gpt4"]
NormalForm = Literal["NFC", "NFKC"]

# Placeholders: L letter, N number, O other (not space, letter or number), S space, X not space, P what GPT-4
# lets lead a word. Possessive quantifiers (a++) never give back what they took; the splits are the same and
# the matching is faster.
_TEMPLATES = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?<L>++| ?<N>++| ?<O>++|<S>+(?!<X>)|<S>++",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|<P>?+<L>++|<N>{1,3}+| ?<O>++[\r\n]*+|<S>*[\r\n]|<S>+(?!<X>)|<S>++",
}
# The same in the notation of other regex engines, as it is written into tokenizer.json.
STANDARD_PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+",
}
_ASCII = {
    "L": "[A-Za-z]",
    "N": "[0-9]",
    "O": r"[^\t-\r A-Za-z0-9]",
    "S": r"[\t-\r ]",
    "X": r"[^\t-\r ]",
    "P": r"[^\r\nA-Za-z0-9]",
}
_QUICK = {
    "L": r"[^\W\d_]",
    "N": r"\d",
    "O": r"(?:[^\w\s]|_)",
    "S": r"\s",
    "X": r"\S",
    "P": r"(?:[^\w\r\n]|_)",
}

# Between a character that is no space and a plain space every pattern above starts a new word, whatever comes
# later.
_BORDER = re.compile(r"(?<=\S) ")


@functools.cache
def _odd_characters() -> frozenset[str]:
    """The characters that `re` puts in another class than Unicode does."""
    numbers = (c for c in map(chr, range(0x110000)) if unicodedata.category(c) in ("Nl", "No"))
    return frozenset(numbers) | frozenset("\x1c\x1d\x1e\x1f")


def _ranges(characters: Iterable[str]) -> str:
    """The inside of a regex character class for these characters."""
    runs: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs)


def _exact_classes() -> dict[str, str]:
    numbers, controls = _ranges(c for c in _odd_characters() if c > " "), r"\x1c-\x1f"
    return {
        "L": rf"[^\W\d_{numbers}]",
        "N": rf"[\d{numbers}]",
        "O": rf"(?:[^\w\s]|[_{controls}])",
        "S": rf"(?:(?![{controls}])\s)",
        "X": rf"[\S{controls}]",
        "P": r"(?:[^\w\r\n]|_)",
    }


@functools.cache
def _compiled(pattern: PatternName, kind: Literal["ascii", "quick", "exact"]) -> re.Pattern[str]:
    classes = {"ascii": _ASCII, "quick": _QUICK}.get(kind) or _exact_classes()
    return re.compile(re.sub("<([LNOSXP])>", lambda match: classes[match[1]], _TEMPLATES[pattern]))


def split_words(text: str, pattern: PatternName) -> list[str]:
    """Cut `text` into words; joined they give `text` back."""
    if text.isascii():
        return _compiled(pattern, "ascii").findall(text)
    kind = "quick" if _odd_characters().isdisjoint(text) else "exact"
    return _compiled(pattern, kind).findall(text)


@dataclass(frozen=True)
class TextRules:
    """What happens to text before its bytes are looked at: the same when training and when encoding."""

    pattern: PatternName = "gpt2"
    normalize: NormalForm | None = None
    lowercase: bool = False

    def __post_init__(self) -> None:
        if self.pattern not in _TEMPLATES:
            raise UserError(f"unknown split pattern {self.pattern!r}; there are {' and '.join(_TEMPLATES)}")
        if self.normalize not in (None, "NFC", "NFKC"):
            raise UserError(f"unknown normal form {self.normalize!r}; there are NFC and NFKC")

    def normalized(self, text: str) -> str:
        if text.isascii():
            return text.lower() if self.lowercase else text
        if self.normalize:
            text = unicodedata.normalize(self.normalize, text)
        # str.lower() turns Σ into σ or ς by its place in the word, `tokenizers` always into σ.
        return text.replace("Σ", "σ").lower() if self.lowercase else text

    def words(self, text: str) -> list[str]:
        return split_words(self.normalized(text), self.pattern)


def regroup(texts: Iterable[str], specials: Iterable[str] = (), size: int = 1 << 11) -> Iterator[str]:
    """The joined text in pieces of about `size` characters, cut only where the whole has a word border.

    Splitting the pieces therefore gives the words of the joined text, in bounded memory and linear time. Text
    without a space cannot be cut and stays whole. Special tokens (some hold a space) are not cut either. Small
    pieces are quick to split: more of them are ASCII throughout.
    """
    specials = tuple(specials)
    border, longest = _border(specials), max(map(len, specials), default=0)
    held: list[str] = []
    length, wanted = 0, size
    for text in texts:
        held.append(text)
        length += len(text)
        if length <= wanted:
            continue
        joined, start = "".join(held), 0
        while (cut := border.search(joined, start + size)) and cut.start() + longest <= len(joined):
            yield joined[start : cut.start()]
            start = cut.start()
        held, length = [joined[start:]], len(joined) - start
        wanted = max(size, 2 * length)  # what could not be cut is looked at again once it has doubled
    if length:
        yield "".join(held)


def _border(specials: tuple[str, ...]) -> re.Pattern[str]:
    """Where text may be cut: at a word border that is not inside one of `specials`."""
    inside = [(token[:i], token[i:]) for token in specials for i in range(1, len(token)) if token[i] == " "]
    if not inside:
        return _BORDER
    refused = "".join(f"(?<!{re.escape(before)}(?={re.escape(after)}))" for before, after in inside)
    return re.compile(refused + _BORDER.pattern)


def grouped(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """The texts in lists of about `size` characters: work for one process at a time."""
    group: list[str] = []
    length = 0
    for text in texts:
        group.append(text)
        length += len(text)
        if length >= size:
            yield group
            group, length = [], 0
    if group:
        yield group


def encode_utf8(text: str) -> bytes:
    """UTF-8, or one clear ValueError: a lone surrogate is half of a character that was cut in two."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"the text holds the lone surrogate U+{code:04X}, which is no character; "
            "clean it with text.encode('utf-8', 'replace').decode()"
        ) from None
