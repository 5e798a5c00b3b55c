"""Training a SentencePiece model: words are counted here, the sentencepiece package learns from the counts.

Both of its algorithms look at a text word by word, so the counts are all that they need (its input format "tsv").
The text itself is never in memory, and the order of the documents does not matter.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from typing import Any, Literal, get_args

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # pyright: ignore[reportAttributeAccessIssue]

from ..errors import UserError
from .bpe_training import Progress, Texts, count_words
from .sentencepiece_json import CONTROL, SPECIAL, UNKNOWN, spaced
from .special import SpecialTokens
from .splitting import TextRules, encode_utf8

Algorithm = Literal["unigram", "bpe"]

APART = frozenset("\t\n\r\0▁▅")
"""What SentencePiece cannot have in a piece, or uses as a mark of its own; line ends, because they end a word."""

_MARK = "tinytale"
_COVERAGE = 0.9995  # share of the text whose characters get a piece of their own; SentencePiece's default
_ROUND = 256
_LONGEST = 1000
_CLASS = r"\t\n\r\x00▁▅"
PATTERN = f"[{_CLASS}]| {{0,{_LONGEST}}}[^ {_CLASS}]{{1,{_LONGEST}}}| {{1,{_LONGEST}}}"
"""Words. One takes along the spaces before it, as in SentencePiece: no piece reaches across a border. Very long ones
are cut, so that the work stays linear and sums of scores stay below 2^16, where 32-bit floats are exact."""
_WORD = re.compile(PATTERN)


@dataclass(frozen=True)
class SpacedRules(TextRules):
    """As for the other tokenizers, but words are cut at spaces only."""

    def words(self, text: str) -> list[str]:
        return _WORD.findall(self.normalized(text))

    @property
    def name(self) -> str:
        """How a model's file says these rules."""
        return " ".join(filter(None, [_MARK, self.normalize, "lowercase" if self.lowercase else None]))

    @classmethod
    def named(cls, name: str) -> "SpacedRules | None":
        """The rules of that name; None if it is not one of ours."""
        known = (cls(normalize=form, lowercase=lower) for form in (None, "NFC", "NFKC") for lower in (False, True))
        return next((rules for rules in known if rules.name == name), None)


def learn(
    texts_or_paths: Texts,
    vocab_size: int,
    algorithm: Algorithm,
    specials: SpecialTokens,
    rules: SpacedRules,
    progress: Progress | None,
    workers: int,
) -> Any:
    """The ModelProto: special tokens, the 256 bytes, then pieces, best first; see `SentencePieceTokenizer.train`."""
    if algorithm not in get_args(Algorithm):
        raise UserError(f"unknown algorithm {algorithm!r}; SentencePiece has unigram and bpe")
    if specials.unk is None:
        raise UserError("SentencePiece needs an unk token; add <unk> to the special tokens")
    counts = count_words(texts_or_paths, rules, specials.names, progress, workers)
    if progress:
        progress("learning", 0, vocab_size)
    # Names of bytes and special tokens must be possible to spell with pieces, lest `tokenizers`, which has them in
    # the same table, take them for the real ones. A space must be a piece, lest it be written as the bytes of "▁".
    always = set(" ").union(*map(rules.normalized, ("<0x0123456789ABCDEF>", *specials.names))) - APART
    words = _known_words({word: n for word, n in counts.items() if word[0] not in APART}, always)
    first, characters = len(specials.names), len(set().union(*words))
    if vocab_size < first + 256 + characters:
        raise UserError(
            f"a vocabulary of {vocab_size} is too small for {first} special tokens, the 256 bytes and "
            f"{characters} characters; it needs at least {first + 256 + characters}"
        )
    model = _run(words, algorithm, 1 + vocab_size - first)  # 1: its unk token, which is among ours
    pieces = model.pieces[1:]
    if len(pieces) < vocab_size - first:
        raise UserError(
            f"the text is too small for a vocabulary of {vocab_size}; it gives at most {first + len(pieces)} tokens"
        )
    if algorithm == "unigram":
        for piece in pieces:
            piece.score = round(piece.score * _ROUND) / _ROUND
    del model.pieces[:]
    add_specials(model, specials)
    model.pieces.extend(pieces)
    model.trainer_spec.vocab_size = vocab_size
    model.normalizer_spec.name = rules.name
    check_names(model)
    return model


def _known_words(counts: Mapping[str, int], always: set[str]) -> dict[str, int]:
    """The counts, commonest first, of words made of frequent characters only; the others will be bytes."""
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    total = characters.total()
    if not total:
        raise UserError("there is no text to train a tokenizer on")
    encode_utf8("".join(characters))  # refuses halves of characters
    known, covered = set(always), 0
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        if covered >= _COVERAGE * total:
            break
        known.add(character)
        covered += count
    # SentencePiece drops what is less than a rounding error of the whole.
    words: Counter[str] = Counter(dict.fromkeys(always, 1 + total // 2**20))
    for word, count in counts.items():
        for is_known, part in groupby(word, known.__contains__):
            if is_known:
                words["".join(part)] += count
    return dict(sorted(words.items(), key=lambda item: (-item[1], item[0])))


def _run(words: Mapping[str, int], algorithm: Algorithm, vocab_size: int) -> Any:
    """What the package makes of the counts: unk, the bytes, and as many pieces as there is room for and text."""
    written = BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(f"{word}\t{count}" for word, count in words.items()),
            input_format="tsv",
            model_writer=written,
            model_type=algorithm,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=10 * _LONGEST,
            bos_id=-1,
            eos_id=-1,
            num_threads=4,  # always: the scores depend on it, in their last digits
            minloglevel=3,
        )
    except RuntimeError as error:
        raise UserError(f"SentencePiece cannot learn from this text: {error}") from None
    return ModelProto.FromString(written.getvalue())


# ---------------------------------------------------------------------- special tokens
def specials_of(model: Any) -> tuple[SpecialTokens, dict[str, int]]:
    """The special tokens of any model and their ids: the pieces that no text is cut into."""
    ids = {piece.piece: i for i, piece in enumerate(model.pieces) if piece.type in SPECIAL}
    names = {i: name for name, i in ids.items()}
    roles = {role: names.get(getattr(model.trainer_spec, f"{role}_id")) for role in ("pad", "unk", "bos", "eos")}
    return SpecialTokens(tuple(ids), **roles), ids


def add_specials(model: Any, specials: SpecialTokens) -> None:
    """Append those that the model does not have yet, and write down the roles of all."""
    for name in specials.names[len(specials_of(model)[1]) :]:
        model.pieces.add(piece=name, score=0, type=UNKNOWN if name == specials.unk else CONTROL)
    spec, ids = model.trainer_spec, specials_of(model)[1]
    spec.vocab_size = len(model.pieces)
    for role, name in specials.roles.items():
        setattr(spec, f"{role}_piece", name)
        setattr(spec, f"{role}_id", ids[name])


def check_names(model: Any) -> None:
    """Refuse special tokens that SentencePiece or `tokenizers` would mix up with ordinary ones."""
    ordinary = {piece.piece for piece in model.pieces if piece.type not in SPECIAL}
    ordinary |= set(map(spaced, ordinary))
    for name in specials_of(model)[1]:
        if len(name) == 1:
            raise UserError(f"{name!r} is one character, too short for a special token of SentencePiece")
        if name in ordinary:
            raise UserError(f"{name!r} is in the vocabulary already, as an ordinary token; give it another name")
