"""Tokenizers in a GGUF file: tokens, their types, and merges or scores; how text is cut into words, by a name.

llama.cpp has code of its own for each way to cut text, and the file only names it. A tokenizer whose way has no name is
refused: a guess would give the model ids that it was never trained on. Vocabularies are of two kinds: byte-level BPE
("gpt2") and SentencePiece's BPE ("llama"). llama.cpp has unigram models too, but without bytes for what has no piece.

Source: llama.cpp's `src/llama-vocab.cpp`.
"""

from typing import Any

import mlx.core as mx

from ..errors import UserError
from ..tokenizers.base import Tokenizer
from ..tokenizers.sentencepiece_json import BPE
from ..tokenizers.sentencepiece_training import SpacedRules
from ..tokenizers.special import IM_END
from ..tokenizers.splitting import STANDARD_PATTERNS
from .spelling import Json

Metadata = dict[str, Any]
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens. What a text spells becomes a control token only where its writer may, and those are not shown."""

_GPT2, _GPT4 = STANDARD_PATTERNS["gpt2"], STANDARD_PATTERNS["gpt4"]
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"\p{N}| ", r"\p{N}{1,3}| ")
SPLITS = {
    (_GPT2,): "gpt-2",
    (r"\p{N}", _GPT2): "smollm",
    (_QWEN2,): "qwen2",
    (_GPT4,): "dbrx",  # these two cut alike: \s*[\r\n] goes on to the last line end in any case
    (_LLAMA3,): "dbrx",
}
"""The regexes that cut text, one after the other, to llama.cpp's name for them."""
CHANGES_TEXT = "none that changes text before it is cut, as lowercase and NFKC do"
LOOKING_UP = {"dbrx": "llama-bpe"}
"""The name of the same split where a word that is a token is taken whole, whatever the merges make of it."""


def tokenizer_metadata(tokenizer: Tokenizer, rows: int, chat_template: str | None) -> Metadata:
    """The keys tokenizer.ggml.* and tokenizer.chat_template, for an embedding of so many rows.

    Raises UserError for a tokenizer that llama.cpp does not have, or that has no token for the end of a text.
    """
    from ..tokenizers.sentencepiece import SentencePieceTokenizer  # slow to import

    if isinstance(tokenizer, SentencePieceTokenizer):
        found = _sentencepiece(tokenizer, rows)
    else:
        found = _byte_level_bpe(tokenizer._to_json(), rows)
    found |= {f"{role}_token_id": mx.array(i, mx.uint32) for role, i in _roles(tokenizer, chat_template).items()}
    found |= {"add_bos_token": mx.array(tokenizer.begins_with_bos), "add_eos_token": mx.array(False)}
    metadata = {f"tokenizer.ggml.{key}": value for key, value in found.items()}
    return metadata if chat_template is None else metadata | {"tokenizer.chat_template": chat_template}


def _roles(tokenizer: Tokenizer, chat_template: str | None) -> dict[str, int]:
    """Without an end or a beginning llama.cpp would take token 11 for one."""
    turn = tokenizer.special_ids.get(IM_END) if chat_template is not None else None
    eos = tokenizer.eos_id if tokenizer.eos_id is not None else turn
    if eos is None:
        raise _refused("none without a token for the end of a text")
    bos = eos if tokenizer.bos_id is None else tokenizer.bos_id
    ids = {"bos": bos, "eos": eos, "eot": turn, "padding": tokenizer.pad_id, "unknown": tokenizer.unk_id}
    return {role: number for role, number in ids.items() if number is not None}


def _refused(lacking: str) -> UserError:
    return UserError(f"GGUF can't express this tokenizer: llama.cpp has {lacking}")


def _filled(names: dict[int, str], types: dict[int, int], rows: int) -> Metadata:
    """Every row of the embedding has a token, be it one that nothing is written with."""
    return {
        "tokens": [names.get(i, f"[PAD{i}]") for i in range(rows)],
        "token_type": mx.array([types.get(i, UNUSED) for i in range(rows)], mx.int32),
    }


# ---------------------------------------------------------------------- byte-level BPE
def _byte_level_bpe(content: Json, rows: int) -> Metadata:
    """From a tokenizer.json, ours or another's."""
    model, decoder = content["model"], content.get("decoder") or {}
    if model["type"] != "BPE" or decoder.get("type") != "ByteLevel":
        raise _refused("byte-level BPE and SentencePiece's BPE only")
    if content.get("normalizer") not in (None, {"type": "NFC"}):  # NFC changes no text as people type it
        raise _refused(CHANGES_TEXT)
    if not model["merges"]:
        raise _refused("none without merges")
    names = {number: name for name, number in model["vocab"].items()}
    types = dict.fromkeys(names, NORMAL)
    for token in content["added_tokens"]:
        names[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    split = SPLITS.get(_regexes(content.get("pre_tokenizer") or {}))
    if split is None:
        raise _refused("no name for the way in which it cuts text into words")
    if model.get("ignore_merges"):
        split = LOOKING_UP.get(split, split)
    return {"model": "gpt2", "pre": split, "merges": merges, **_filled(names, types, rows)}


def _regexes(pre_tokenizer: Json) -> tuple[str, ...]:
    """The regexes that cut text, one after the other; "" for a step that is none."""
    found = []
    for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if step.get("type") == "ByteLevel" and not step["add_prefix_space"]:
            found += [_GPT2] if step["use_regex"] else []
        elif step.get("type") == "Digits" and step["individual_digits"]:
            found.append(r"\p{N}")
        elif step.get("type") == "Split" and (step["behavior"], step["invert"]) == ("Isolated", False):
            found.append(step["pattern"].get("Regex", ""))
        else:
            found.append("")
    return tuple(found)


# ---------------------------------------------------------------------- SentencePiece
def _sentencepiece(tokenizer: Any, rows: int) -> Metadata:
    """Pieces, scores and types as they are: the two formats number the types alike."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # pyright: ignore[reportAttributeAccessIssue]

    model = ModelProto.FromString(tokenizer.model)
    spec = model.normalizer_spec
    if model.trainer_spec.model_type != BPE:
        raise _refused("no SentencePiece unigram model that writes unknown characters in bytes; BPE it has")
    rules = SpacedRules.named(spec.name)
    changed = rules.lowercase or rules.normalize == "NFKC" if rules else spec.remove_extra_whitespaces
    if changed or spec.precompiled_charsmap:
        raise _refused(CHANGES_TEXT)
    pieces = dict(enumerate(model.pieces))
    scores = [pieces[i].score if i in pieces else 0.0 for i in range(rows)]
    return {
        "model": "llama",
        "pre": "default",
        "scores": mx.array(scores, mx.float32),
        "add_space_prefix": mx.array(spec.add_dummy_prefix),
        **_filled({i: p.piece for i, p in pieces.items()}, {i: p.type for i, p in pieces.items()}, rows),
    }
