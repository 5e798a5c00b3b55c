"""What every tokenizer promises, however it cuts text: all that the rest of tinytale knows about it."""

import codecs
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ..errors import UserError
from ..workers import map_ordered
from .files import begin_json, begins_with, config_json, write_json
from .special import SpecialTokens
from .splitting import grouped, regroup
from .trie import SpecialSplitter

Name = TypeVar("Name", str, bytes)
BATCH = 1 << 20
"""Characters that go to a worker process at a time."""


class Tokenizer(ABC):
    """Text to ids and back.

    Ids run from 0 to `vocab_size` - 1 without a gap. `encode` never adds a special token of its own; put
    `bos_id` and `eos_id` where you want them. It does turn a special token *written in the text* into its one
    id; for text by strangers pass `special=False`, and "<|eos|>" is seven ordinary characters.

    A subclass fills in `_encode_plain`, `token_bytes`, `_with_specials`, `_to_json` and `load`.
    """

    specials: SpecialTokens
    special_ids: dict[str, int]
    begins_with_bos: bool
    """Whether a text is meant to begin with BOS. Some tokenizers name a BOS token that their models never saw."""

    def __init__(self, specials: SpecialTokens, special_ids: dict[str, int]) -> None:
        self.specials = specials
        self.special_ids = special_ids
        self.begins_with_bos = specials.bos is not None
        self._special_names = {number: name for name, number in special_ids.items()}
        self._splitter = SpecialSplitter(special_ids)

    # ------------------------------------------------------------------ text to ids
    @abstractmethod
    def _encode_plain(self, text: str) -> list[int]:
        """The ids of text in which special tokens mean nothing special."""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of `text`. ValueError if it has none: lone surrogates, or unknown and there is no unk."""
        if not special or not self.special_ids:
            return self._encode_plain(text)
        ids: list[int] = []
        for piece, is_special in self._splitter.split(text):
            if is_special:
                ids.append(self.special_ids[piece])
            else:
                ids += self._encode_plain(piece)
        return ids

    def encode_batch(self, texts: Iterable[str], *, special: bool = True, workers: int = 1) -> list[list[int]]:
        """The ids of each text on its own. Several `workers` pay from some ten megabytes on, see `map_ordered`."""
        if workers == 1:
            return [self.encode(text, special=special) for text in texts]
        encoded: list[list[int]] = []
        for ids, lengths in self.encode_batches(grouped(texts, BATCH), special=special, workers=workers):
            flat, start = ids.tolist(), 0
            for end in lengths.cumsum().tolist():
                encoded.append(flat[start:end])
                start = end
        return encoded

    def encode_batches(
        self, batches: Iterable[list[str]], *, special: bool = False, workers: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each batch of texts, in order: their ids, uint32 [N], end to end, and how many each has, int64 [texts].

        Lazily: of the batches, few are under way at a time; a megabyte of text is a good size. Raises as `encode`
        and `map_ordered` do.
        """
        return map_ordered(_encode_compactly, (self, special), batches, workers)

    def encode_iterable(self, texts: Iterable[str], *, special: bool = True) -> Iterator[int]:
        """The ids of the *joined* texts (an open file, chunks of a long text), lazily, in constant memory."""
        for piece in regroup(texts, self.special_ids if special else ()):
            yield from self.encode(piece, special=special)

    # ------------------------------------------------------------------ ids to text
    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """What the token writes, in UTF-8; b"" for special tokens. ValueError if there is no such id."""

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        """The bytes of any sequence of ids; special tokens are left out, or written by name."""
        if skip_special:
            return b"".join(map(self.token_bytes, ids))
        names = self._special_names
        return b"".join(names[i].encode() if i in names else self.token_bytes(i) for i in ids)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of any sequence of ids; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", errors="replace")

    # ------------------------------------------------------------------ facts
    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""

    @property
    def pad_id(self) -> int | None:
        return self._role(self.specials.pad)

    @property
    def unk_id(self) -> int | None:
        return self._role(self.specials.unk)

    @property
    def bos_id(self) -> int | None:
        return self._role(self.specials.bos)

    @property
    def eos_id(self) -> int | None:
        return self._role(self.specials.eos)

    def _role(self, name: str | None) -> int | None:
        return None if name is None else self.special_ids[name]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of everything that decides the ids; saving and loading keep it."""
        content = json.dumps([self._to_json(), self.specials.roles], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    # ------------------------------------------------------------------ more tokens
    def add_tokens(self, names: Sequence[str]) -> Self:
        """A tokenizer of the same kind with further special tokens; they get the next ids, and all others stay.

        A role (pad, eos, ...) that no token has yet goes to a new one with a well-known name, such as "<|pad|>".

        Raises:
            UserError: a name is listed twice, is empty or is in the vocabulary already.
        """
        specials = self.specials.extended(names)
        there = set(map(self.token_bytes, range(self.vocab_size)))
        for name in names:
            if name.encode() in there:
                raise UserError(f"{name!r} is in the vocabulary already, as an ordinary token")
        extended = self._with_specials(specials)
        if self.specials.bos is not None:
            extended.begins_with_bos = self.begins_with_bos
        return extended

    def _with_specials(self, specials: SpecialTokens) -> Self:
        """The same with these special tokens, of which those that are new come at the end of the vocabulary."""
        raise UserError(f"{type(self).__name__} takes no further tokens")

    # ------------------------------------------------------------------ files
    @abstractmethod
    def _to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""

    def save(self, directory: str | Path, *, model_max_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json.

        `tokenizers`, transformers and mlx-lm load them with the same ids. `model_max_length` is in tokens.
        """
        directory = Path(directory)
        content = self._to_json()
        if self.specials.bos is not None and self.begins_with_bos:  # then other programs begin texts so, too
            content["post_processor"] = begin_json(self.specials.bos, self.special_ids[self.specials.bos])
        write_json(directory / "tokenizer.json", content)
        write_json(directory / "tokenizer_config.json", config_json(self.specials, model_max_length))

    def _beginning_as(self, content: dict[str, Any]) -> Self:
        """This tokenizer, which was read from `content`: it begins texts with BOS if the file says so."""
        self.begins_with_bos = begins_with(content.get("post_processor"), self.specials.bos)
        return self

    @classmethod
    @abstractmethod
    def load(cls, directory: str | Path) -> Self:
        """Read what `save` wrote. ValueError, naming the file, if it is missing, damaged or not that."""


def _encode_compactly(how: tuple[Tokenizer, bool], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """What `encode_batches` yields for one batch: two arrays, which are small and quick to send to a process."""
    tokenizer, special = how
    ids, lengths = array("I"), array("q")
    for text in texts:
        encoded = tokenizer.encode(text, special=special)
        ids.extend(encoded)
        lengths.append(len(encoded))
    return np.frombuffer(ids, np.uint32), np.frombuffer(lengths, np.int64)


class ListedTokenizer(Tokenizer):
    """One that has a list of what each token writes, `_written`, which a subclass fills in."""

    _written: dict[int, bytes]

    @property
    def vocab_size(self) -> int:
        return len(self._written)

    def token_bytes(self, token_id: int) -> bytes:
        try:
            return self._written[token_id]
        except KeyError:
            raise check_id(token_id, self.vocab_size) from None


def numbers_of(vocab: Mapping[int, Name]) -> dict[Name, int]:
    """The id of each token. Refuses a vocabulary in which two tokens are the same."""
    ids = {name: token for token, name in vocab.items()}
    if len(ids) < len(vocab):
        twice = next(name for token, name in vocab.items() if ids[name] != token)
        raise UserError(f"two tokens of the vocabulary are the same: {twice!r}")
    return ids


def check_id(token_id: int, vocab_size: int) -> UserError:
    """The error for an id that is not in the vocabulary."""
    return UserError(f"token id {token_id} is not in the vocabulary; ids run from 0 to {vocab_size - 1}")


def check_contiguous(ids: Sequence[int]) -> None:
    """Refuse a vocabulary whose ids are not exactly 0 to n - 1."""
    if sorted(ids) != list(range(len(ids))):
        raise UserError(f"the ids of {len(ids)} tokens must be 0 to {len(ids) - 1}, each once")


class StreamDecoder:
    """Text from ids as they arrive, one by one; never half a character.

    `add` returns what has become complete (often ""), `flush` what is left at the end, as U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token_id: int) -> str:
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
