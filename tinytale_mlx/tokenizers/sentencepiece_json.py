"""A SentencePiece model in the notation of `tokenizers`, with the same ids.

SentencePiece writes a space inside a piece as "▁" (U+2581), and so cannot tell the two apart. In tokenizer.json pieces
hold plain spaces: there "▁" in a text is a character like any other that has no piece, and is written in bytes.
"""

import base64
from collections.abc import Mapping
from typing import Any

from .files import Json, fill_frame, frame_json, normalizer_json, split_json
from .splitting import TextRules

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
"""Types of pieces, as SentencePiece numbers them."""
SPECIAL = (UNKNOWN, CONTROL)
"""Those that no text is cut into."""
UNIGRAM, BPE = 1, 2
"""Types of models, likewise."""

# The score of what stands in the table but must not be found in a text: "<0x41>" or "<|eos|>" spelled out. Whatever
# way there is to write it with pieces is better.
_NEVER = -1e6


def to_json(model: Any, special_ids: Mapping[str, int], rules: TextRules | None, pattern: str) -> Json:
    """The whole tokenizer.json of a ModelProto.

    With `rules`, text is normalized by them and cut into the matches of `pattern`; without, it is changed as
    SentencePiece would change it, and not cut.
    """
    spec = model.normalizer_spec
    decoders: list[Json] = [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if rules is None:
        normalizer, pre_tokenizer = _own_normalizer(spec), {"type": "Sequence", "pretokenizers": []}
    else:
        normalizer, pre_tokenizer = normalizer_json(rules), split_json(pattern)
    if spec.add_dummy_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    tables = _unigram(model) if model.trainer_spec.model_type == UNIGRAM else _bpe(model)
    frame = frame_json(normalizer, pre_tokenizer, {"type": "Sequence", "decoders": decoders}, {})
    return fill_frame(frame, special_ids, tables)


def _own_normalizer(spec: Any) -> Json:
    """What SentencePiece itself does to a text: a table of replacements, then the spaces."""
    steps: list[Json] = []
    if spec.precompiled_charsmap:
        table = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": table})
    if spec.remove_extra_whitespaces:
        steps += [_replace({"Regex": r"\A +| +\z"}, ""), _replace({"Regex": " {2,}"}, " ")]
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": " "})
    steps.append(_replace({"String": "▁"}, " "))
    return {"type": "Sequence", "normalizers": steps}


def _replace(pattern: Json, content: str) -> Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


def spaced(piece: str) -> str:
    """A piece with plain spaces, as it stands in a text."""
    return piece.replace("▁", " ")


def _vocabulary(model: Any) -> list[tuple[str, float]]:
    """Names and scores by id. Special tokens at the very end are left out: `tokenizers` adds them by itself."""
    pieces = list(model.pieces)
    while pieces and pieces[-1].type == CONTROL:
        pieces.pop()
    return [
        (piece.piece, _NEVER) if piece.type in (*SPECIAL, BYTE) else (spaced(piece.piece), piece.score)
        for piece in pieces
    ]


def _unigram(model: Any) -> Json:
    return {
        "type": "Unigram",
        "unk_id": next(i for i, piece in enumerate(model.pieces) if piece.type == UNKNOWN),
        "vocab": [list(entry) for entry in _vocabulary(model)],
        "byte_fallback": model.trainer_spec.byte_fallback,
    }


def _bpe(model: Any) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": next(piece.piece for piece in model.pieces if piece.type == UNKNOWN),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": model.trainer_spec.byte_fallback,
        "ignore_merges": False,
        "vocab": {name: i for i, (name, _) in enumerate(_vocabulary(model))},
        "merges": _merges(model),
    }


def _merges(model: Any) -> list[list[str]]:
    """The merges of a BPE model, best first.

    SentencePiece keeps no list of them. Any two neighbours that make a piece may merge, and the pair that makes the
    piece with the highest score is first.
    """
    scores = {spaced(piece.piece): piece.score for piece in model.pieces if piece.type in (NORMAL, USER_DEFINED)}
    best_first = sorted(scores, key=scores.__getitem__, reverse=True)
    cuts = ((name[:i], name[i:]) for name in best_first for i in range(1, len(name)))
    return [[first, second] for first, second in cuts if first in scores and second in scores]
