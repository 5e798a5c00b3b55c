"""One text: read the prompt once, then one token at a time, with the keys and values kept.

It is a batch of one row (`batch.py`, `memory.py`), so one body serves single texts and many.
"""

import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import mlx.core as mx

from ..recipe import GenerateRecipe
from .batch import Arguments, Batch, Text, Token
from .keys import row_keys
from .memory import context_of
from .prompt_cache import PromptCache
from .sampling import Sampler
from .speculative import Draft, speculate


def generate_tokens(
    model: Any,
    prompt: list[int],
    settings: GenerateRecipe,
    key: mx.array,
    stop: Collection[int] = (),
    vocabulary: int | None = None,
    *,
    automaton: mx.array | None = None,
    cache: PromptCache | None = None,
    draft: Draft | None = None,
) -> Iterator[Token]:
    """The tokens that follow `prompt`, each with the model's log-probabilities at its place.

    They go up to and including the first one of `stop`; all are below `vocabulary`.

    Text beyond the trained context is read in a window: when it is full, generation goes on from its last half. (A
    model with a sliding window, and a cache that rolls, just go on.) A longer prompt counts with its end. The same key
    gives the same tokens, of which a lower limit is the start; they are those of the first row of `generate_batch`.
    `cache` keeps what was read and written for the next prompt. `draft` guesses ahead, which changes the speed and
    nothing else; settings that look at the past (penalties, an automaton) do without it. Raises ValueError for an empty
    prompt, UserError for a draft with another vocabulary.
    """
    text = Text(list(prompt), row_keys(key, [0])[0], settings.max_new_tokens)
    if draft is not None:
        draft.check(model)
    cache = PromptCache() if cache is None else cache
    context = context_of(model)
    memory = cache.prepare(model, prompt[-context:] if context else prompt)
    try:
        sampler = Sampler(settings, 1, vocabulary, stop, automaton)
        if draft is not None and not sampler.needs_history and not sampler.state:
            text.base = len(prompt) - min(len(prompt), context or len(prompt))
            yield from speculate(memory, text, draft, sampler, stop, None if memory.rolls else context)
        if not text.done:
            batch = Batch(model, memory, settings, stop, vocabulary, automaton)
            batch.waiting.append(text)
            yield from batch
    finally:
        cache.keep(text.ids()[text.base :])


def _only_ids(tokens: Callable[Arguments, Iterator[Token]]) -> Callable[Arguments, Iterator[int]]:
    @functools.wraps(tokens)
    def ids(*arguments: Arguments.args, **options: Arguments.kwargs) -> Iterator[int]:
        return (token.id for token in tokens(*arguments, **options))

    return ids


generate_ids = _only_ids(generate_tokens)
"""The ids of `generate_tokens` alone."""
