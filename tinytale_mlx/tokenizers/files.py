"""Tokenizer files: JSON written whole or not at all, in Hugging Face's notation.

That is the notation of the Rust library `tokenizers`: a normalizer, a pre-tokenizer, a model and a decoder,
each named by "type".
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, get_args

from ..disk import replacing
from ..errors import UserError
from .special import SpecialTokens
from .splitting import NormalForm, PatternName, TextRules

Json = dict[str, Any]


def write_json(path: Path, content: Json) -> None:
    """Put it in place whole: a crash leaves the old file or the new one, not a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.write("\n")


def read_text(path: Path) -> str:
    """The text of a file. ValueError, naming it, if it is missing or no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} is {wrong:#04x}") from None


def read_json(path: Path) -> Json:
    """The object in a JSON file. ValueError, naming it, if it is missing, truncated or no object."""
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it should hold one JSON object")
    return content


# ---------------------------------------------------------------------- tokenizer_config.json
def config_json(specials: SpecialTokens, model_max_length: int | None) -> Json:
    """tokenizer_config.json: which special token has which role, and the context in tokens."""
    config: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for role in ("bos", "eos", "pad", "unk"):
        config[f"{role}_token"] = specials.roles.get(role)
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    return config


def read_config(directory: Path) -> Json:
    """tokenizer_config.json, or nothing where there is none."""
    path = directory / "tokenizer_config.json"
    return read_json(path) if path.exists() else {}


def read_specials(directory: Path, names: tuple[str, ...]) -> SpecialTokens:
    """The roles of the special tokens `names`, from tokenizer_config.json if there is one."""
    return specials_from(read_config(directory), names)


def specials_from(config: Json, names: tuple[str, ...]) -> SpecialTokens:
    """The special tokens `names` with the roles that tokenizer_config.json gives them."""
    roles = {role: _content(config.get(f"{role}_token")) for role in ("pad", "unk", "bos", "eos")}
    return SpecialTokens(names, **{role: name if name in names else None for role, name in roles.items()})


def _content(token: Any) -> str | None:
    """A token is written as a string, or as an object with the string and its flags."""
    return token.get("content") if isinstance(token, dict) else token


# ---------------------------------------------------------------------- tokenizer.json
# How `tokenizers` describes a special token that is matched exactly as it is written.
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def frame_json(normalizer: Json | None, pre_tokenizer: Json, decoder: Json, model: Json) -> Json:
    """A tokenizer.json without its tables: everything that says how text is cut and joined."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def begin_json(name: str, token_id: int) -> Json:
    """A post-processor that puts a special token before every text."""
    begin, text = {"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [token_id], "tokens": [name]}},
    }


def begins_with(processor: Any, name: str | None) -> bool:
    """Whether a post-processor puts this special token before a text."""
    if name is None or not isinstance(processor, dict):
        return False
    if processor.get("type") == "Sequence":
        return any(begins_with(step, name) for step in processor["processors"])
    first = {"SpecialToken": {"id": name, "type_id": 0}}
    return processor.get("type") == "TemplateProcessing" and processor["single"][:1] == [first]


def fill_frame(frame: Json, special_ids: Mapping[str, int], tables: Json) -> Json:
    """The whole tokenizer.json: a frame with its special tokens and the model's tables."""
    in_order = sorted(special_ids.items(), key=lambda item: item[1])
    added = [{"id": token_id, "content": name, **_FLAGS} for name, token_id in in_order]
    return {**frame, "added_tokens": added, "model": {**frame["model"], **tables}}


def frame_of(content: Json, tables: Sequence[str]) -> Json:
    """What is left of a tokenizer.json without its plain special tokens and the named tables.

    Left out too is what pads, shortens or adds special tokens after the ids are known: `encode` never does.
    """
    model, added = content.get("model"), content.get("added_tokens")
    if isinstance(model, dict):
        model = {key: value for key, value in model.items() if key not in tables}
    if isinstance(added, list):
        added = [token for token in added if not (isinstance(token, dict) and _FLAGS.items() <= token.items())]
    unused = dict.fromkeys(("truncation", "padding", "post_processor"))
    return {**content, **unused, "added_tokens": added, "model": model}


def special_ids_from(content: Json) -> dict[str, int]:
    """The special tokens of a tokenizer.json in id order."""
    return {token["content"]: token["id"] for token in sorted(content["added_tokens"], key=lambda t: t["id"])}


def normalizer_json(rules: TextRules) -> Json | None:
    steps: list[Json] = []
    if rules.normalize:
        steps.append({"type": rules.normalize})
    if rules.lowercase:
        steps.append({"type": "Lowercase"})
    if len(steps) == 2:
        return {"type": "Sequence", "normalizers": steps}
    return steps[0] if steps else None


def split_json(pattern: str) -> Json:
    """A pre-tokenizer that cuts wherever the regex matches, keeping every piece."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def find_rules(frame: Json, frame_for: Callable[[TextRules], Json]) -> TextRules | None:
    """The text rules that a tokenizer.json states, or None if it states something else than we ever write."""
    for pattern, form, lower in product(get_args(PatternName), (None, *get_args(NormalForm)), (False, True)):
        rules = TextRules(pattern, form, lower)
        if frame == frame_for(rules):
            return rules
    return None


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is being understood into one sentence that names it."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{path} holds no {what} that tinytale can read: {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} holds no {what} that tinytale can read: {error}") from None
