"""Writing with a model that is loaded: `from tinytale_mlx import load, generate, stream`.

model = load("runs/latest")
print(generate(model, "Once upon a time", temperature=0.7))
for piece in stream(model, [{"role": "user", "content": "Tell me a tale."}]):
    print(piece, end="", flush=True)
"""

import difflib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
from pydantic import ValidationError

from ..errors import UserError
from ..generation.automaton import choices as choices_automaton
from ..generation.completions import complete_all, sample_key, stream_text
from ..generation.json_automaton import json_automaton
from ..generation.memory import context_of
from ..generation.prompts import text_prompt, too_long
from ..generation.text import Completion
from ..recipe import GenerateRecipe
from ..tokenizers.chat import Message
from .loading import Loaded

Prompt = str | Sequence[Message]
"""A text to continue, "" for a new one, or messages to answer."""


def generate(model: Loaded, prompt: Prompt = "", **options: Any) -> Completion:
    """What the model writes after `prompt`: `str(...)` of it is the text, `.tokens` and `.logprobs` are there too.

    options: as for `stream`.
    """
    return generate_all(model, [prompt], **options)[0][0]


def stream(
    model: Loaded,
    prompt: Prompt = "",
    *,
    seed: int = 0,
    logprobs: int | None = None,
    choices: Sequence[str] | None = None,
    json: bool = False,
    completion: Completion | None = None,
    place: tuple[int, int] = (0, 0),
    **settings: Any,
) -> Iterator[str]:
    """The same in pieces, as they become whole characters.

    seed: the same seed gives the same text.
    logprobs: note the log-probability of every token, and so many of the likeliest ones beside it, 0 or more.
    choices: the text is one of these. json: it is a JSON object or array, unless it is cut at max_new_tokens.
    completion: all of the text goes in here while it is streamed.
    place: in a series, the number of the prompt and of its sample; each place has other chances.
    settings: any key of the recipe's section `generate`; the others are the model's own.

    A prompt that is longer than the model's context counts with its end, of which a warning tells. Raises UserError for
    a setting that is unknown or out of range, and for a prompt that the tokenizer can't write.
    """
    chosen = _settings_for(model, settings)
    return stream_text(
        model.model,
        model.tokenizer,
        _encode(model, prompt),
        chosen,
        sample_key(seed, *place),
        model.stop,
        Completion() if completion is None else completion,
        _checked(logprobs),
        _automaton(model, choices, json),
    )


def generate_all(
    model: Loaded,
    prompts: Sequence[Prompt],
    *,
    samples: int = 1,
    seed: int = 0,
    logprobs: int | None = None,
    choices: Sequence[str] | None = None,
    json: bool = False,
    first: int = 0,
    **settings: Any,
) -> list[list[Completion]]:
    """For each prompt `samples` completions, many of them computed together; options as for `stream`.

    first: the number of the first prompt, where they are a part of a longer list.
    With beams, the samples are the best texts that were found, the best first.
    """
    chosen = _settings_for(model, settings)
    if samples < 1:
        raise UserError(f"samples: at least 1, not {samples}")
    if chosen.beams > 1 and samples > chosen.beams:
        raise UserError(f"{chosen.beams} beams find no more than {chosen.beams} texts; {samples} were asked for")
    ids = [_encode(model, prompt) for prompt in prompts]
    return complete_all(
        model.model,
        model.tokenizer,
        ids,
        chosen,
        seed,
        model.stop,
        samples,
        _checked(logprobs),
        _automaton(model, choices, json),
        first,
    )


def with_settings(settings: GenerateRecipe, given: dict[str, Any], prefix: str = "") -> GenerateRecipe:
    """The settings with those that are given. Raises UserError for an unknown one or a value out of range.

    prefix: what stands before the names in a message, "--" for a command line.
    """
    try:
        return GenerateRecipe.model_validate(settings.model_dump() | given)
    except ValidationError as error:
        problem = error.errors()[0]
    if not problem["loc"]:  # two settings that do not go together
        raise UserError(problem["msg"].removeprefix("Value error, "))
    name = str(problem["loc"][0])
    option = prefix + (name.replace("_", "-") if prefix else name)
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, GenerateRecipe.model_fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(GenerateRecipe.model_fields)}"
        raise UserError(f"there is no setting {name}; {hint}")
    raise UserError(f"{option}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {problem['input']}")


def _settings_for(model: Loaded, given: dict[str, Any]) -> GenerateRecipe:
    chosen, size = with_settings(model.settings, given), model.tokenizer.vocab_size
    unknown = sorted(token for token in chosen.logit_bias if token >= size)
    if unknown:
        raise UserError(f"logit_bias: there is no token {unknown[0]}; the tokenizer has the ids 0 to {size - 1}")
    return chosen


def _checked(logprobs: int | None) -> int | None:
    if logprobs is not None and logprobs < 0:
        raise UserError(f"logprobs: a number of alternatives, 0 or more, not {logprobs}")
    return logprobs


def _encode(model: Loaded, prompt: Prompt) -> list[int]:
    ids = text_prompt(model.tokenizer, prompt) if isinstance(prompt, str) else model.encode(prompt)
    if note := too_long(ids, context_of(model.model)):
        warnings.warn(note, stacklevel=3)
    return ids


def _automaton(model: Loaded, choices: Sequence[str] | None, json: bool) -> mx.array | None:
    if choices is not None and json:
        raise UserError("either one of some choices or JSON, not both")
    if choices is not None:
        return choices_automaton(model.tokenizer, choices, model.stop)
    return json_automaton(model.tokenizer, model.stop) if json else None
