"""What an alignment learns from: rows of preferences, read, held out by a hash of their prompt, and made into ids.

Every kind of row has a prompt, so every kind will do where only prompts are wanted, as for PPO.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..alignment.pairs import encode_comparisons, encode_labels, encode_prompt_only
from ..data.files import Skipped, usable
from ..data.preferences import (
    NAMES,
    Item,
    Labelled,
    Preference,
    Ranked,
    Verifiable,
    embedded_preferences,
    embedded_questions,
    pairs,
    preferences_from,
)
from ..data.sources import resolve, rows
from ..data.split import split
from ..errors import UserError
from ..generation.memory import context_of
from ..recipe import AlignDataRecipe, AlignRecipe, DataRecipe
from ..recipe.align import LengthsRecipe
from ..tokenizers import Tokenizer
from ..tokenizers.chat import ChatTemplate
from ..tokenizers.templates import PLAIN
from .finetune_data import choose_template
from .loading import Loaded

EMBEDDED = {"tales": (embedded_preferences, 3000), "questions": (embedded_questions, 2000)}
"""By source: what makes its rows, and how many where the recipe names no number."""
LOOKED_AT = 500
"""Rows from which the lengths follow, where the recipe names none."""
MOST = 128

Wanted = Callable[[Item], list[Any] | None]
"""What a kind of alignment makes of a row: items that it can use, or None where it can't use any."""


# ---------------------------------------------------------------------- what of a row is wanted
def comparisons(item: Item) -> list[Any] | None:
    return [item] if isinstance(item, Preference | Ranked) else None


def preferences(item: Item) -> list[Any] | None:
    return pairs(item) if isinstance(item, Ranked) else [item] if isinstance(item, Preference) else None


def labels(item: Item) -> list[Any] | None:
    """Of a preference both responses, one desirable and the other not."""
    if isinstance(item, Labelled):
        return [item]
    found = preferences(item)
    return found and [
        Labelled(one.prompt, said, good) for one in found for said, good in ((one.chosen, True), (one.rejected, False))
    ]


def anything(item: Item) -> list[Any] | None:
    return [item]


# ---------------------------------------------------------------------- reading
def read_items(data: AlignDataRecipe, seed: int, wanted: Wanted) -> Iterator[Any]:
    """The items of all sources, in order. Raises UserError for what can't be read, and for rows of another kind."""
    found = (one for source in _names(data) for one in _source(source, data, seed, wanted))
    return islice(found, data.documents)


def _names(data: AlignDataRecipe) -> list[str]:
    return [data.source] if isinstance(data.source, str) else data.source


def _source(source: str, data: AlignDataRecipe, seed: int, wanted: Wanted) -> Iterator[Any]:
    def make(row: Any, where: str) -> list[Any]:
        item = row if isinstance(row, Item) else preferences_from(row, where)
        items = wanted(item)
        if items is None:
            raise UserError(f"{where}: this is {NAMES[type(item)]}, from which this kind of alignment can't learn")
        return items

    on_skip = Skipped() if data.skip_bad else None
    if source in EMBEDDED and not Path(source).exists():
        embedded, usual = EMBEDDED[source]
        made = ((item, f"the embedded {source}") for item in embedded(data.documents or usual, seed))
        for items in usable(made, make, source, on_skip):
            yield from items
        return
    for place in resolve(source):
        for items in usable(rows(place, DataRecipe(source=source), ""), make, str(place), on_skip):
            yield from items


def align_template(data: AlignDataRecipe, base: Loaded) -> ChatTemplate:
    """The recipe's; left out, plain text for embedded tales, which are no dialogues, else as in a fine-tuning."""
    if data.template is None and _names(data) == ["tales"]:
        return PLAIN
    return choose_template(data, base)


# ---------------------------------------------------------------------- as ids
@dataclass(frozen=True)
class AlignData:
    """What is learned from and what is held out."""

    train: Any
    """`Comparisons` or `Labels`; None where only prompts are wanted."""
    held: Any
    prompts: list[list[int]]
    held_prompts: list[list[int]]
    first: list[str]
    """What a few of the held-out prompts say, to write samples for."""
    answers: dict[tuple[int, ...], str]
    """By prompt: the right answer, where the data has one."""
    counts: dict[str, int]
    """How many rows were used, and how many were not, for what."""
    fingerprint: str
    """Of all ids: a run that is resumed has to go on with the same."""


def split_items(data: AlignDataRecipe, items: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Those to learn from and those held out. Raises UserError where one side would be empty."""
    train, held = [], []
    for item in items:
        side = split([dict(message) for message in item.prompt], data.validation)
        (held if side == "validation" else train).append(item)
    if not (train and held):
        side = "training" if held else "validation"
        raise UserError(
            f"of {len(train) + len(held)} rows, a data.validation of {data.validation} leaves none for {side}; use "
            "more rows or another data.validation"
        )
    return train, held


def fit_lengths(recipe: AlignRecipe, items: list[Any], base: Loaded, template: ChatTemplate) -> AlignRecipe:
    """The recipe with lengths that suit data and model, where it names none: room for the longest response, but no more
    than half of what the model reads; and the rest for the prompt. Neither gets more than 128.

    Raises UserError for lengths that are given and do not fit into what the model reads.
    """
    lengths, context = recipe.method, context_of(base.model)
    given = {key: getattr(lengths, key) for key in LengthsRecipe.model_fields if key in lengths.model_fields_set}
    room = context or 2 * MOST
    if sum(given.values()) > room - (2 - len(given)):
        said = " and ".join(f"{key} {value}" for key, value in given.items())
        raise UserError(f"{said} leave no room for a prompt and a response in the model's context of {room}")
    prompt, response = _longest(items[:LOOKED_AT], base.tokenizer, template, room)
    spare = room - given.get("prompt_tokens", room - max(room // 2, 1))
    response = given.get("response_tokens", min(response or MOST, MOST, spare))
    prompt = given.get("prompt_tokens", min(prompt, MOST, room - response))
    fitted = lengths.model_copy(update={"prompt_tokens": prompt, "response_tokens": response})
    return recipe.model_copy(update={recipe.kind: fitted})


def _longest(items: list[Any], tokenizer: Tokenizer, template: ChatTemplate, room: int) -> tuple[int, int | None]:
    """Tokens of the longest prompt, and of the longest response that is no longer than `room`, if there is any."""
    wide = LengthsRecipe(prompt_tokens=room, response_tokens=room)
    prompt = max(len(encode_prompt_only(tokenizer, item.prompt, wide, template)[0]) for item in items)
    compared = [item for item in items if isinstance(item, Preference | Ranked)]
    labelled = [item for item in items if isinstance(item, Labelled)]
    masks = [
        *([encode_comparisons(compared, tokenizer, wide, template)[0].mask] if compared else []),
        *([encode_labels(labelled, tokenizer, wide, template)[0].mask] if labelled else []),
    ]
    return prompt, max((int(mask.sum(axis=-1).max()) for mask in masks), default=None)


def encode_items(
    recipe: AlignRecipe, train: list[Any], held: list[Any], tokenizer: Tokenizer, template: ChatTemplate
) -> AlignData:
    """Raises UserError where nothing is left to learn from, or to hold out."""
    lengths, counts = recipe.method, {"long_prompts": 0}
    both = [_within(recipe, side, tokenizer, template, counts) for side in (train, held)]
    if not all(both):
        raise UserError(
            f"all prompts are longer than {recipe.kind}.prompt_tokens {lengths.prompt_tokens}; give them more, or let "
            "data.long_prompts=shorten cut their beginning"
        )
    encoded: list[Any] = [None, None]
    kind = type(both[0][0][0])
    if recipe.kind in ("reward", "dpo"):
        encode: Any = encode_labels if kind is Labelled else encode_comparisons
        for number, side in enumerate(both):
            encoded[number], left = encode([item for item, _ in side], tokenizer, lengths, template)
            for name, count in asdict(left).items():
                counts[name] = counts.get(name, 0) + count
    prompts, held_prompts = (_distinct([ids for _, ids in side]) for side in both)
    first = [str(item.prompt[-1]["content"]) for item, _ in both[1]]
    answers = {tuple(ids): item.answer for side in both for item, ids in side if isinstance(item, Verifiable)}
    held_prompts = held_prompts[: recipe.data.validation_prompts]
    digest = _digest(*encoded, prompts, held_prompts)
    first = list(dict.fromkeys(first))[:2]
    return AlignData(encoded[0], encoded[1], prompts, held_prompts, first, answers, counts, digest)


def _within(
    recipe: AlignRecipe, items: list[Any], tokenizer: Tokenizer, template: ChatTemplate, counts: dict[str, int]
) -> list[tuple[Any, list[int]]]:
    """Items with the ids of their prompt, without those that are too long, where such are dropped."""
    found = []
    for item in items:
        ids, long = encode_prompt_only(tokenizer, item.prompt, recipe.method, template)
        if long and recipe.data.long_prompts == "drop":
            counts["long_prompts"] += 1
        else:
            found.append((item, ids))
    return found


def _distinct(prompts: list[list[int]]) -> list[list[int]]:
    return [list(ids) for ids in dict.fromkeys(map(tuple, prompts))]


def _digest(*parts: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        arrays = part if hasattr(part, "_fields") else [np.array([i for ids in part or [] for i in [*ids, -1]])]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
