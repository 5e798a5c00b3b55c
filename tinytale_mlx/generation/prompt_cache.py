"""What was read or written before, kept for the next prompt: in a chat, each prompt begins with all that was said."""

from collections.abc import Sequence
from typing import Any

from .memory import Memory, make_memory


class PromptCache:
    """A text that a model remembers. Give the same one to each `generate_ids` of a conversation, with the same model.

    Of a new prompt, only what differs from the remembered text is read. `tokens` is that text.
    """

    def __init__(self, kv_bits: int | None = None, roll: bool = False) -> None:
        self.tokens: list[int] = []
        self._kv_bits, self._roll = kv_bits, roll
        self._model: Any = None
        self._memory: Memory | None = None

    def prepare(self, model: Any, prompt: Sequence[int]) -> Memory:
        """A memory of one row that holds the longest beginning that the prompt shares with the text, less its end."""
        if self._memory is None or self._model is not model:
            self._model, self._memory = model, make_memory(model, 1, self._kv_bits, self._roll)
        shared = min(common_prefix(self.tokens, prompt), len(prompt) - 1)
        # A ring does not know any more what came before its window, so it can only be gone on with from its end.
        keep = 0 if self._memory.rolls else shared
        self._memory.trim(0, min(keep, self._memory.lengths[0]))
        self.tokens = []
        return self._memory

    def keep(self, tokens: list[int]) -> None:
        """These are what the memory holds, or they and one more that nobody has seen."""
        assert self._memory is not None
        self._memory.trim(0, min(len(tokens), self._memory.lengths[0]))
        self.tokens = tokens[: self._memory.lengths[0]]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    shortest = min(len(a), len(b))
    return next((i for i in range(shortest) if a[i] != b[i]), shortest)
