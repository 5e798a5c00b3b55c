"""Preferences as ids, encoded once: prompts, responses with the token that ends them, and which of them are compared.

Nothing is tokenized twice. A response is what stands behind its prompt in the whole conversation, up to and including
the token that ends it. One that does not fit has lost that token and is left out, as are pairs that are equal or empty
by then; how many were, is said.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..data.conversations import Messages
from ..data.order import ROUNDS, draw, permute
from ..data.preferences import Labelled, Preference, Ranked
from ..errors import UserError
from ..recipe.align import LengthsRecipe
from ..tokenizers.base import Tokenizer
from ..tokenizers.chat import ChatTemplate, encode_conversation, encode_prompt
from .scoring import Rows, lay_out

UNRANKED = np.inf


class Comparisons(NamedTuple):
    """K responses to each of N prompts, and which are better; arrays of NumPy."""

    ids: np.ndarray
    """[N, K, P + T], see `Rows`."""
    starts: np.ndarray
    """[N, K]."""
    mask: np.ndarray
    """[N, K, T]; all 0 for a response that is not there."""
    ranks: np.ndarray
    """[N, K] float32, the least is the best; infinite for a response that is not there."""
    margins: np.ndarray
    """[N] float32: by how much a better one should be ahead; 0 where nobody said."""


class Labels(NamedTuple):
    """Single responses, each desirable or not; arrays of NumPy."""

    ids: np.ndarray
    starts: np.ndarray
    mask: np.ndarray
    desirable: np.ndarray
    """[N] bool."""


@dataclass
class Left:
    """How many rows were encoded, and how many were left out, for what."""

    kept: int = 0
    too_long: int = 0
    """A response does not end within its tokens."""
    empty: int = 0
    """A response says nothing before it ends."""
    equal: int = 0
    """Two responses are the same ids."""
    shortened: int = 0
    """Of those that were kept: the prompt lost its beginning."""


def encode_prompt_only(
    tokenizer: Tokenizer, prompt: Messages, lengths: LengthsRecipe, template: ChatTemplate
) -> tuple[list[int], bool]:
    """The last `prompt_tokens` ids of a prompt, and whether that is less than all. UserError for an empty one."""
    ids = encode_prompt(tokenizer, prompt, template)
    if not ids:
        raise UserError("a prompt is empty, and this tokenizer has no token to begin a text with (bos)")
    return ids[-lengths.prompt_tokens :], len(ids) > lengths.prompt_tokens


def encode_comparisons(
    items: Iterable[Preference | Ranked], tokenizer: Tokenizer, lengths: LengthsRecipe, template: ChatTemplate
) -> tuple[Comparisons, Left]:
    """All pairs of a ranking stay together in a row, so that each response is read once (Ouyang et al. 2022).

    Raises UserError where nothing is left.
    """
    left, prompts, answers, ranks, margins = Left(), [], [], [], []
    for item in items:
        said = item.responses if isinstance(item, Ranked) else [item.chosen, item.rejected]
        own_ranks = item.ranks if isinstance(item, Ranked) else [1.0, 2.0]
        found = _responses(tokenizer, item.prompt, said, lengths, template, left)
        if found is None:
            continue
        prompts.append(found[0])
        answers.append(found[1])
        ranks.append(own_ranks)
        margins.append((item.margin or 0.0) if isinstance(item, Preference) else 0.0)
    _check(left)
    most = max(len(own) for own in answers)
    filled = [own + [_Response((), ())] * (most - len(own)) for own in answers]
    flat = [(prompt, response) for prompt, own in zip(prompts, filled, strict=True) for response in own]
    rows = _rows([p for p, _ in flat], [r for _, r in flat], lengths)
    shaped = Rows(*(array.reshape(len(prompts), most, *array.shape[1:]) for array in rows))
    all_ranks = np.array([[*own, *[UNRANKED] * (most - len(own))] for own in ranks], np.float32)
    return Comparisons(*shaped, all_ranks, np.array(margins, np.float32)), left


def encode_labels(
    items: Iterable[Labelled], tokenizer: Tokenizer, lengths: LengthsRecipe, template: ChatTemplate
) -> tuple[Labels, Left]:
    """Raises UserError where nothing is left."""
    left, prompts, answers, desirable = Left(), [], [], []
    for item in items:
        found = _responses(tokenizer, item.prompt, [item.response], lengths, template, left)
        if found is not None:
            prompts.append(found[0])
            answers += found[1]
            desirable.append(item.desirable)
    _check(left)
    return Labels(*_rows(prompts, answers, lengths), np.array(desirable)), left


class _Response(NamedTuple):
    ids: Sequence[int]
    weights: Sequence[int]


def _responses(
    tokenizer: Tokenizer, prompt: Messages, said: Sequence[Messages], lengths: LengthsRecipe, template: ChatTemplate,
    left: Left,
) -> tuple[list[int], list[_Response]] | None:  # fmt: skip
    """A prompt's ids and those of its responses; None, and counted, where the row cannot be used."""
    ids, shortened = encode_prompt_only(tokenizer, prompt, lengths, template)
    begin = len(encode_prompt(tokenizer, prompt, template))
    found = []
    for messages in said:
        whole = encode_conversation(tokenizer, [*prompt, *messages], template, trained_from=len(prompt))
        end = max(i for i, weight in enumerate(whole.weights) if weight) + 1
        found.append(_Response(whole.ids[begin:end], whole.weights[begin:end]))
    if any(len(response.ids) > lengths.response_tokens for response in found):
        left.too_long += 1
    elif any(len(response.ids) < 2 for response in found):
        left.empty += 1
    elif len({tuple(response.ids) for response in found}) < len(found):
        left.equal += 1
    else:
        left.kept += 1
        left.shortened += shortened
        return ids, found
    return None


def _rows(prompts: Sequence[list[int]], responses: Sequence[_Response], lengths: LengthsRecipe) -> Rows:
    ids, weights = [r.ids for r in responses], [r.weights for r in responses]
    return lay_out(prompts, ids, lengths.prompt_tokens, lengths.response_tokens, weights)


def _check(left: Left) -> None:
    if not left.kept:
        raise UserError(
            f"no row is left to learn from: {left.too_long} have a response that does not fit into response_tokens, "
            f"{left.empty} an empty one, {left.equal} twice the same"
        )


class ShuffledRows:
    """Batches of rows, a pure function of (seed, number): `at(17)` is batch 17, through as many epochs as it takes."""

    def __init__(self, arrays: Sequence[np.ndarray], batch_size: int, seed: int):
        self.arrays, self.seed, self.count = arrays, seed, len(arrays[0])
        self.batch_size = min(batch_size, self.count)

    def at(self, number: int) -> tuple[Any, ...]:
        """Each array's rows of this batch."""
        positions = number * self.batch_size + np.arange(self.batch_size)
        epochs, places = np.divmod(positions, self.count)
        taken = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            taken[here] = permute(places[here], self.count, draw(self.seed, int(epoch))[:ROUNDS])
        return tuple(array[taken] for array in self.arrays)
