"""From tokens to text while they come: whole characters, the texts that end an answer, how sure the model was."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from ..tokenizers.base import StreamDecoder, Tokenizer


@dataclass(frozen=True)
class Alternative:
    """A token that might have come, and its log-probability in nats."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprob(Alternative):
    """A token that came. The log-probabilities are the model's own, before temperature and filters."""

    alternatives: list[Alternative]
    """The likeliest tokens at its place, the likeliest first; it is among them or not."""


@dataclass
class Completion:
    """What was generated: grows while it is streamed. `str(completion)` is its text."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    """All that was drawn but the stop token; where a text ended the answer, that text's tokens too."""
    finish_reason: Literal["stop", "length"] = "length"
    """`stop`: the model ended its text, or a stop text came; `length`: it was cut at the limit."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    """For each of `tokens`, where they were asked for."""

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """Text, number of tokens, reason; and the log-probabilities where there are any."""
        found: dict[str, Any] = {
            "text": self.text,
            "tokens": len(self.tokens),
            "finish_reason": self.finish_reason,
        }
        if self.logprobs:
            found["logprobs"] = [
                {
                    **_plain(one),
                    "alternatives": [_plain(other) for other in one.alternatives],
                }
                for one in self.logprobs
            ]
        return found


def _plain(one: Alternative) -> dict[str, Any]:
    return {"id": one.id, "text": one.text, "logprob": round(one.logprob, 6)}


class StopTexts:
    """Cuts a stream of text at the first of some texts, wherever the pieces' borders are.

    What might be the beginning of a stop text is held back until it is clear; so of a stop text nothing is ever shown.
    """

    def __init__(self, texts: Collection[str]):
        self._texts = list(texts)
        self._held = ""
        self.found = False

    def add(self, piece: str) -> str:
        """What may be shown, now that `piece` has come. Of several stop texts, the one that ends first counts."""
        text = self._held + piece
        places = [(start + len(stop), start) for stop in self._texts if (start := text.find(stop)) >= 0]
        if places:
            self._held, self.found = "", True
            return text[: min(places)[1]]
        keep = max((_overlap(text, stop) for stop in self._texts), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back and turned out to be no stop text, since nothing follows."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


class Writer:
    """One text as its tokens come. `add` and `finish` return what may be shown; `completion` has all of it.

    With `alternatives`, a number, log-probabilities are noted, and so many of the likeliest tokens at each place.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_ids: Collection[int],
        stop_texts: Collection[str] = (),
        alternatives: int | None = None,
        completion: Completion | None = None,
    ):
        self._tokenizer, self._stop_ids, self._alternatives = tokenizer, stop_ids, alternatives
        self._decoder, self._stops = StreamDecoder(tokenizer), StopTexts(stop_texts)
        self.completion = Completion() if completion is None else completion
        self.done = False

    def add(self, token: int, logprobs: mx.array | None = None) -> str:
        """The text that has become certain, often ""; then `done` says whether it ends here. logprobs [vocabulary]."""
        if token in self._stop_ids:
            self.completion.finish_reason = "stop"
            self.done = True
            return ""
        self.completion.tokens.append(token)
        if self._alternatives is not None and logprobs is not None:
            self.completion.logprobs.append(describe(self._tokenizer, token, logprobs, self._alternatives))
        return self._show(self._decoder.add(token))

    def finish(self) -> str:
        """What is left when no token follows."""
        if self._stops.found:
            return ""
        text = self._show(self._decoder.flush())
        rest = "" if self._stops.found else self._stops.flush()
        self.completion.text += rest
        return text + rest

    def _show(self, piece: str) -> str:
        shown = self._stops.add(piece)
        if self._stops.found:
            self.completion.finish_reason = "stop"
            self.done = True
        self.completion.text += shown
        return shown


def describe(tokenizer: Tokenizer, token: int, logprobs: mx.array, alternatives: int) -> TokenLogprob:
    """A token with its log-probability, and the likeliest `alternatives` at its place; logprobs [vocabulary]."""
    values = np.array(logprobs, dtype=np.float32)

    def fields(token_id: int) -> tuple[int, str, float]:
        return token_id, tokenizer.decode([token_id], skip_special=False), float(values[token_id])

    likeliest = [Alternative(*fields(int(i))) for i in np.argsort(-values, kind="stable")[:alternatives]]
    return TokenLogprob(*fields(token), likeliest)
