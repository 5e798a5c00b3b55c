"""generation_config.json: the sampling settings of a model as transformers spells them, written and read.

What transformers has no word for is kept in a section of its own, "tinytale", which it ignores.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import UserError
from ..recipe import GenerateRecipe
from ..tokenizers.files import read_json
from .spelling import Json

NAME = "generation_config.json"
_DEFAULT = GenerateRecipe()
ALWAYS = {  # ours: theirs; said when the settings differ from what changes nothing
    "min_new_tokens": "min_new_tokens",
    "stop": "stop_strings",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram": "no_repeat_ngram_size",
}
SAMPLING = {"min_p": "min_p", "typical_p": "typical_p"}
BEAMS = {"beams": "num_beams", "length_penalty": "length_penalty"}
OWN = ("frequency_penalty", "presence_penalty")


def generation_json(generation: GenerateRecipe, tokens: Json) -> Json:
    """The content of the file; `tokens` are the ids of its special tokens.

    Beside greedy decoding (temperature 0) and beams transformers wants no more said about sampling.
    """
    samples = generation.temperature > 0 and generation.beams == 1
    found = {**tokens, "max_new_tokens": generation.max_new_tokens, "do_sample": samples}
    if samples:  # top_k 0 is said too: left out, transformers takes 50
        found |= {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": generation.top_k}
    found |= _changed(generation, ALWAYS | (SAMPLING if samples else {}) | (BEAMS if generation.beams > 1 else {}))
    if generation.logit_bias:
        found["sequence_bias"] = [[[token], bias] for token, bias in generation.logit_bias.items()]
    if own := _changed(generation, {name: name for name in OWN}):
        found["tinytale"] = own
    return found


def _changed(generation: GenerateRecipe, names: dict[str, str]) -> Json:
    return {
        theirs: getattr(generation, ours)
        for ours, theirs in names.items()
        if getattr(generation, ours) != getattr(_DEFAULT, ours)
    }


def read_generation(directory: Path) -> GenerateRecipe:
    """The settings that a model directory brings; where it says nothing, ours. Raises UserError for a wrong value."""
    path = directory / NAME
    if not path.is_file():
        return _DEFAULT
    raw = read_json(path)
    found = {"max_new_tokens": raw.get("max_new_tokens"), **{name: raw.get(name) for name in ("top_p", "top_k")}}
    found |= {"temperature": 0.0 if raw.get("do_sample") is False else raw.get("temperature")}
    found |= {ours: raw.get(theirs) for ours, theirs in (ALWAYS | SAMPLING | BEAMS).items()}
    if isinstance(found["stop"], str):
        found["stop"] = [found["stop"]]
    own = raw.get("tinytale")
    found |= own if isinstance(own, dict) else {}
    try:
        found["logit_bias"] = _single_biases(raw.get("sequence_bias") or ())
        return GenerateRecipe.model_validate({key: value for key, value in found.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}") from None
    except (TypeError, ValueError):
        raise UserError(f"{path}: sequence_bias is not a list of [[token id], bias]") from None


def _single_biases(pairs: Collection[Any]) -> dict[int, float]:
    """Of biases on sequences of tokens, those on a single one."""
    return {int(ids[0]): float(bias) for ids, bias in pairs if len(ids) == 1}


def end_ids(directory: Path) -> set[int]:
    """The ids that end a text, as the directory says; it may say nothing."""
    path = directory / NAME
    found = read_json(path).get("eos_token_id") if path.is_file() else None
    return {one for one in (found if isinstance(found, list) else [found]) if isinstance(one, int)}
