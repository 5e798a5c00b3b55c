"""Google's SentencePiece behind our interface: unigram (Kudo 2018) or BPE over characters, bytes for the rest.

Kudo & Richardson 2018, arXiv:1808.06226. A unigram model gives every piece a probability and cuts a word in the most
probable way; BPE here starts from characters, not from bytes as in `bpe.py`. A character that has no piece of its own
is written in the 256 byte tokens (byte fallback), so no text is unknown, and decoding gives every text back.

Three things are ours, so that `tokenizers` and transformers, too, make the same ids of every text:

- Text is normalized by our rules and cut into words before SentencePiece sees it; its own normalization is off.
- "▁", which SentencePiece cannot tell from a space, and the few characters that no piece can hold are written in
  bytes without asking it.
- Scores of a unigram model are rounded to 1/256: then sums are exact, in its 32-bit floats as in their 64-bit ones.

Training is in `sentencepiece_training.py`, the other notation in `sentencepiece_json.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # pyright: ignore[reportAttributeAccessIssue]

from ..disk import replacing
from ..errors import UserError
from .base import ListedTokenizer
from .bpe_training import Progress, Texts
from .byte_level import WordCache
from .files import Json, frame_of, read_json, special_ids_from
from .sentencepiece_json import BPE, BYTE, SPECIAL, UNIGRAM, spaced, to_json
from .sentencepiece_training import (
    APART,
    PATTERN,
    Algorithm,
    SpacedRules,
    add_specials,
    check_names,
    learn,
    specials_of,
)
from .special import SpecialTokens
from .splitting import NormalForm, encode_utf8, regroup

FILE = "sentencepiece.model"


class SentencePieceTokenizer(ListedTokenizer):
    """A SentencePiece model, trained here (`train`) or by somebody else (`from_file`).

    One that was trained here gives every text back (normalized, if that was asked for). Its unk token is never
    used; SentencePiece only insists that there is one.

    Somebody else's does to text what its authors wished: it may put a space in front, drop repeated spaces, and
    know no bytes. The ids of each stretch of text between special tokens are those of the sentencepiece package.

    `model` is what the package reads: the content of a SentencePiece file, a serialized ModelProto.
    """

    model: bytes

    def __init__(self, model: bytes) -> None:
        """UserError if `model` is none."""
        proto, self._processor = _opened(model)
        self.model = model
        self._rules = SpacedRules.named(proto.normalizer_spec.name)
        self._dummy_prefix = proto.normalizer_spec.add_dummy_prefix
        super().__init__(*specials_of(proto))
        self._written = {i: _bytes_of(piece) for i, piece in enumerate(proto.pieces)}
        self._byte_ids = {self._written[i][0]: i for i, piece in enumerate(proto.pieces) if piece.type == BYTE}
        self._words = WordCache(self._encode_word, 1 << 15)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model,), {"begins_with_bos": self.begins_with_bos}

    # ------------------------------------------------------------------ training
    @classmethod
    def train(
        cls,
        texts_or_paths: Texts,
        vocab_size: int,
        *,
        algorithm: Algorithm = "unigram",
        special_tokens: SpecialTokens | Sequence[str] | None = None,
        normalize: NormalForm | None = None,
        lowercase: bool = False,
        progress: Progress | None = None,
        workers: int = 1,
    ) -> Self:
        """A model of exactly `vocab_size` tokens: special tokens first, then the 256 bytes, then pieces.

        Words are counted while the texts stream by, by `workers` processes, and SentencePiece learns from the
        counts: memory grows with the number of different words, not with the text, and the result depends on
        nothing but the counts. Line ends and tabs are always bytes. A special token written in a text is no text.

        Raises:
            UserError: no text; fewer tokens than special tokens, bytes and characters need, or more than the text
                gives; no unk token; a special token of one character, or one that the text makes a piece.
        """
        specials, rules = SpecialTokens.of(special_tokens), SpacedRules(normalize=normalize, lowercase=lowercase)
        model = learn(texts_or_paths, vocab_size, algorithm, specials, rules, progress, workers)
        return cls(model.SerializeToString())

    def _with_specials(self, specials: SpecialTokens) -> Self:
        proto = ModelProto.FromString(self.model)
        add_specials(proto, specials)
        check_names(proto)
        return type(self)(proto.SerializeToString())

    # ------------------------------------------------------------------ text to ids
    def _encode_plain(self, text: str) -> list[int]:
        if self._rules is None:
            return self._processor.encode(encode_utf8(text))
        ids: list[int] = []
        for piece in regroup((text,)):
            ids += chain.from_iterable(map(self._words.__getitem__, self._rules.words(piece)))
        return ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        written = encode_utf8(word)
        if word[0] in APART:
            return tuple(map(self._byte_ids.__getitem__, written))
        return tuple(self._processor.encode(written))

    def encode_iterable(self, texts: Iterable[str], *, special: bool = True) -> Iterator[int]:
        """As in every tokenizer; but somebody else's model needs all of the text at once: it may look anywhere."""
        if self._rules is None:
            return iter(self.encode("".join(texts), special=special))
        return super().encode_iterable(texts, special=special)

    # ------------------------------------------------------------------ ids to text
    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        """As in every tokenizer; less the space that somebody else's model puts in front."""
        written = super().decode_bytes(ids, skip_special=skip_special)
        return written.removeprefix(b" ") if self._dummy_prefix else written

    # ------------------------------------------------------------------ files
    def _to_json(self) -> Json:
        return to_json(ModelProto.FromString(self.model), self.special_ids, self._rules, PATTERN)

    def save(self, directory: str | Path, *, model_max_length: int | None = None) -> None:
        """Write sentencepiece.model, and beside it tokenizer.json and tokenizer_config.json.

        With these, `tokenizers`, transformers and mlx-lm make the same ids if the model was trained here. (With
        `normalize` or `lowercase`, of characters that both they and this Python know: Unicode grows.) If not,
        "<0x41>" in a text may become a byte, symbols that its users defined may be found elsewhere, and a long text
        may be cut elsewhere where two ways are almost equally good.
        """
        super().save(directory, model_max_length=model_max_length)
        with replacing(Path(directory) / FILE) as temporary:
            temporary.write_bytes(self.model)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """A model of anybody's (tokenizer.model, spiece.model, ...). UserError, naming the file, if it is none."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        except UserError as error:
            raise UserError(f"{path} holds no SentencePiece model that tinytale can read: {error}") from None

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read what `save` wrote. UserError, naming the file, if it is missing or damaged."""
        tokenizer, path = cls.from_file(Path(directory) / FILE), Path(directory) / "tokenizer.json"
        return tokenizer._beginning_as(read_json(path)) if path.exists() else tokenizer

    @classmethod
    def can_read_directory(cls, directory: str | Path) -> bool:
        """Whether `load` is for this directory: sentencepiece.model is there, and tokenizer.json says the same.

        If it says something else, another tokenizer was saved over ours, or another program added tokens. A
        damaged model counts as ours, so that `load` says what is wrong with it.
        """
        model, beside = Path(directory) / FILE, Path(directory) / "tokenizer.json"
        if not model.exists() or not beside.exists():
            return model.exists()
        try:
            ours = cls.from_file(model)._to_json()
        except UserError:
            return True
        theirs = read_json(beside)
        return frame_of(ours, ()) == frame_of(theirs, ()) and special_ids_from(ours) == special_ids_from(theirs)


def _opened(model: bytes) -> tuple[Any, SentencePieceProcessor]:
    """The model to look into, and to encode with."""
    try:
        proto = ModelProto.FromString(model)
        processor = SentencePieceProcessor(model_proto=model, num_threads=1)
    except (DecodeError, RuntimeError, UnicodeDecodeError):
        raise UserError("it is damaged or something else") from None
    spec, size = proto.trainer_spec, len(proto.pieces)
    if size == 0 or not all(isinstance(piece.piece, str) for piece in proto.pieces):  # bytes if they are no UTF-8
        raise UserError("it is damaged or something else")
    if SpacedRules.named(proto.normalizer_spec.name) and not (spec.byte_fallback and spec.vocab_size == size):
        raise UserError("it is damaged")
    if spec.model_type not in (UNIGRAM, BPE):
        raise UserError("it is neither a unigram nor a BPE model")
    return proto, processor


def _bytes_of(piece: Any) -> bytes:
    if piece.type == BYTE:
        return bytes([int(piece.piece[3:5], 16)])
    return b"" if piece.type in SPECIAL else spaced(piece.piece).encode()
