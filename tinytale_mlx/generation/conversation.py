"""A conversation that goes on: its messages, and the model that answers them."""

import json
import math
import time
import warnings
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..randomness import key
from ..recipe import GenerateRecipe
from ..tokenizers import Tokenizer
from ..tokenizers.chat import Message
from .completions import stream_text
from .memory import context_of
from .prompt_cache import PromptCache
from .prompts import too_long
from .text import Completion


@dataclass
class Figures:
    """Of an answer, or of all so far."""

    tokens: int = 0
    seconds: float = 0.0
    """From the question to the last token."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Conversation:
    """`answer(text)` streams the model's reply.

    encode: messages to the ids that the model continues. stop: the ids that end an answer. alternatives: see
    `stream_text`. A model that has read no conversations (`messages_known` is false) has no system either.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        settings: GenerateRecipe,
        seed: int,
        encode: Callable[[Sequence[Message]], list[int]],
        stop: Collection[int],
        messages_known: bool = True,
        alternatives: int | None = None,
    ):
        self._model, self._tokenizer, self._seed, self._alternatives = model, tokenizer, seed, alternatives
        self._encode, self._stop, self._messages_known = encode, stop, messages_known
        self.settings = settings
        self._system = ""
        self._cache = PromptCache()
        self.reset()

    def reset(self) -> None:
        """Forget everything but the settings and the system message."""
        self.messages: list[dict[str, str]] = []
        self.turns = 0
        self.forgotten = False
        self.used = 0
        """Tokens of the context that the last prompt and its answer took."""
        self.last, self.total = Figures(), Figures()
        self.completion = Completion()
        """The answer that is under way, or the last one."""

    @property
    def context(self) -> int:
        """Tokens; 0 where the model does not say."""
        return context_of(self._model) or 0

    @property
    def system(self) -> str:
        return self._system

    @system.setter
    def system(self, text: str) -> None:
        if text and not self._messages_known:
            raise UserError("this model has read no conversations, so a system message means nothing to it")
        if text:
            self._encode([{"role": "system", "content": text}])  # or the error that its template has for it
        self._system = text

    def answer(self, text: str) -> Generator[str, None, None]:
        """Pieces of the reply to `text`. An answer that is broken off stays in the conversation as far as it came.

        UserError for text that the tokenizer can't write; the conversation then is as it was.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt = self._prompt(messages)
        reply = {"role": "assistant", "content": ""}
        self.messages = [*messages, reply]
        self.turns += 1
        self.completion = completion = Completion()
        started = time.perf_counter()
        try:
            yield from stream_text(
                self._model,
                self._tokenizer,
                prompt,
                self.settings,
                key(self._seed, "chat", self.turns),
                self._stop,
                completion,
                self._alternatives,
                cache=self._cache,
            )
        finally:
            reply["content"] = completion.text
            self._count(len(prompt), completion, time.perf_counter() - started)

    def _count(self, prompt: int, completion: Completion, seconds: float) -> None:
        self.last = Figures(len(completion.tokens), seconds)
        self.total = Figures(self.total.tokens + self.last.tokens, self.total.seconds + seconds)
        used = prompt + self.last.tokens
        self.used = min(used, self.context or used)

    def undo(self) -> bool:
        """Take back the last question and its answer; False where there is none."""
        if not self.messages:
            return False
        del self.messages[-2:]
        return True

    def _prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """The ids to continue; the oldest turns go first where they leave no half a window for the answer.

        Of a question that is longer than the context the end counts, of which a warning tells.
        """
        room = self.context // 2 or math.inf
        system = [{"role": "system", "content": self._system}] if self._system else []
        kept = messages
        while len(ids := self._encode([*system, *kept])) > room and len(kept) > 2:
            kept = kept[2:]
        self.forgotten = len(kept) < len(messages)
        if note := too_long(ids, self.context or None):
            warnings.warn(note, stacklevel=2)
        return ids

    # ------------------------------------------------------------------ files
    def save(self, path: Path) -> None:
        """Write the messages as one JSON object, {"messages": [...]}: a line of the data that fine-tuning reads."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        try:
            path.write_text(json.dumps({"messages": [*system, *self.messages]}, ensure_ascii=False) + "\n", "utf-8")
        except (OSError, ValueError) as error:  # a name with a NUL byte is a ValueError
            raise UserError(f"{path} could not be written: {getattr(error, 'strerror', error)}") from error

    def load(self, path: Path) -> None:
        """Go on with the messages that `save` wrote. Raises UserError for anything else; then nothing changes."""
        try:
            messages = json.loads(path.read_text("utf-8"))["messages"]
            found = [{"role": str(one["role"]), "content": str(one["content"])} for one in messages]
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError):
            raise UserError(f'{path} holds no conversation: {{"messages": [...]}}, as /save writes it') from None
        begin = 1 if found and found[0]["role"] == "system" else 0
        roles = [one["role"] for one in found[begin:]]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise UserError(f"{path} holds no conversation in which user and assistant take turns")
        self.system = found[0]["content"] if begin else ""
        self.reset()
        self.messages = found[begin:]
        self.turns = len(self.messages) // 2
