"""Speculative decoding (Leviathan et al. 2023): something quick guesses the next tokens, the model checks them at once.

To read five tokens costs a model little more than to read one, so each guess that is right is nearly free. The text is
exactly the model's own. The paper accepts or refuses guesses at random, so that the distribution is right. Here each
token has randomness of its own (`keys.py`), so the model's choice at a place is a function of what stands before: a
guess counts if it is that choice. The text then is the very one that is written without a draft, and since the draft
model draws with the same randomness, the two agree about as often as the paper's test accepts (Daliri et al. 2024).
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import mlx.core as mx

from ..errors import UserError
from .batch import Text, Token
from .keys import position_keys
from .memory import Memory, context_of, make_memory, vocabulary_of
from .prompt_cache import common_prefix
from .sampling import Sampler

GUESSES = 4


class Draft(Protocol):
    def check(self, model: Any) -> None:
        """Raises UserError where it can't guess for this model."""
        ...

    def guess(self, ids: Sequence[int], keys: mx.array, sampler: Sampler) -> mx.array:
        """The next tokens, int32 [n], after ids; keys [n, 2] are the randomness of their places."""
        ...


class NgramDraft:
    """Guesses that the text goes on as it did when its last tokens were there before (Saxena 2023, prompt look-up).

    Costs nothing, and helps where a text repeats itself or its prompt: summaries, code, refrains.
    """

    def __init__(self, longest: int = 3) -> None:
        self._longest = longest

    def check(self, model: Any) -> None:
        """What has been written can be written again."""

    def guess(self, ids: Sequence[int], keys: mx.array, sampler: Sampler) -> mx.array:
        count = keys.shape[0]
        found = self._continuation(list(ids), count)
        return mx.array([*found, *[0] * (count - len(found))], mx.int32)

    def _continuation(self, ids: list[int], count: int) -> list[int]:
        for size in range(min(self._longest, len(ids) - 1), 0, -1):
            tail = ids[-size:]
            for start in range(len(ids) - size - 1, -1, -1):
                if ids[start : start + size] == tail:
                    return ids[start + size : start + size + count]
        return []


class ModelDraft:
    """Guesses of a smaller model with the same vocabulary. Keeps what it has read from one text to the next."""

    def __init__(self, model: Any) -> None:
        self._memory: Memory = make_memory(model)
        self._context, self._vocabulary = context_of(model), vocabulary_of(model)
        self._ids: list[int] = []

    def check(self, model: Any) -> None:
        theirs = vocabulary_of(model)
        if self._vocabulary is not None and theirs is not None and self._vocabulary != theirs:
            raise UserError(
                f"the draft model knows {self._vocabulary:,} ids and the model {theirs:,}: they need the same tokenizer"
            )

    def guess(self, ids: Sequence[int], keys: mx.array, sampler: Sampler) -> mx.array:
        count = keys.shape[0]
        self._catch_up(list(ids), count)
        token = mx.array([ids[-1]], mx.int32)
        guesses = []
        for place in range(count):
            logits = self._memory.forward(token[:, None], [0])[:, -1]
            token = sampler(logits, keys[place : place + 1])[0].astype(mx.int32)
            guesses.append(token)
        # The last guess is read as well: if all are right, nothing is missing here.
        mx.async_eval(self._memory.forward(token[:, None], [0]))
        found = mx.concatenate(guesses)
        self._ids = [*ids, *found.tolist()]  # type: ignore[arg-type, misc]
        return found

    def _catch_up(self, ids: list[int], count: int) -> None:
        """Remember all of ids but the last, or as much of their end as there is room for."""
        if self._context is not None and len(ids) + count > self._context:
            ids = ids[-max((self._context - count) // 2, 1) :]
        self._memory.trim(0, min(common_prefix(self._ids, ids[:-1]), self._memory.lengths[0]))
        self._memory.read([0], [ids[self._memory.lengths[0] : -1]])


def speculate(
    memory: Memory,
    text: Text,
    draft: Draft,
    sampler: Sampler,
    stop: Collection[int],
    context: int | None,
    guesses: int = GUESSES,
) -> Iterator[Token]:
    """Tokens of the text while there is room for guesses in the context; then the text is not done.

    The memory holds the beginning of the text; the sampler must know nothing of the past.
    """
    while not text.done and (context is None or memory.lengths[0] + guesses + 1 <= context):
        ids, done = text.ids()[text.base :], len(text.tokens)
        memory.read([0], [ids[memory.lengths[0] : -1]])
        keys = position_keys(mx.broadcast_to(text.key, (guesses + 1, 2)), range(done, done + guesses + 1))
        guess = draft.guess(ids, keys[:guesses], sampler)
        logits = memory.forward(mx.concatenate([mx.array(ids[-1:], mx.int32), guess])[None], [0])[0]
        chosen, logprobs = sampler(logits, keys)
        tokens: Any = chosen.tolist()
        right = common_prefix(tokens, guess.tolist())  # type: ignore[arg-type]
        new = tokens[: min(right + 1, text.limit - done)]
        memory.trim(0, len(ids) - 1 + len(new))
        for place, token in enumerate(new):
            text.add(token, stop)
            yield Token(text, token, logprobs[place])
            if text.done:
                break
