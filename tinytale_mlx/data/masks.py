"""Conversations as flat arrays of tokens and weights, each fitted into the context by a rule that is counted.

The rule `drop` leaves out what is longer than the context. `truncate` cuts it after the last answer that fits whole;
if not even the first one does, in the middle of that. The beginning is kept, not the end: so each answer is trained
after all that was said before it, where otherwise it would seem to know what the model never saw. Either way no
example is left without a token to train, of which the mean loss would be 0/0.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..errors import UserError
from ..tokenizers.base import Tokenizer
from ..tokenizers.chat import ChatTemplate, Encoded, Message, encode_conversation, encode_text
from ..tokenizers.templates import CHATML

Rule = Literal["drop", "truncate"]
Reason = Literal["too_long_dropped", "truncated", "no_trained_token", "empty_answer"]
"""`too_long_dropped` counts also those whose prompt leaves no room for an answer, under either rule."""


def fit(encoded: Encoded, context: int, rule: Rule = "drop") -> tuple[Encoded | None, Reason | None]:
    """What is left of an example in `context` predictions, that is in `context` + 1 tokens, and what was done to it.

    None instead of an example: it is dropped. None instead of a reason: everything that is trained is still there.
    """
    ids, weights = encoded.ids, encoded.weights
    room = context + 1
    trained = [place for place in range(1, len(ids)) if weights[place]]  # nothing predicts the first token
    if not trained:
        return None, "no_trained_token"
    if len(ids) <= room:
        return encoded, None
    if trained[-1] < room:
        return _first(encoded, room), None
    if rule == "drop" or trained[0] >= room:
        return None, "too_long_dropped"
    ends = [place + 1 for place in trained if place + 1 <= room and not weights[place + 1]]
    return _first(encoded, ends[-1] if ends else room), "truncated"


def _first(encoded: Encoded, count: int) -> Encoded:
    return Encoded(encoded.ids[:count], encoded.weights[:count])


@dataclass(frozen=True)
class ConversationSet:
    """Examples in a row, as in a `Shard`, with the weight of every token.

    tokens: uint16 or uint32 [N]. weights: uint8 [N], 1 where predicting this token is trained; the first token of
    an example is never predicted. offsets: int64 [examples + 1]; example i is tokens[offsets[i]:offsets[i + 1]].
    bytes: UTF-8 bytes of text that the trained tokens stand for, what bits per byte divides by. counts: by reason,
    how many of the documents were left out or cut.
    """

    tokens: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    bytes: int
    counts: dict[Reason, int]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def example(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and weights of one example, [length] each."""
        part = slice(self.offsets[number], self.offsets[number + 1])
        return self.tokens[part], self.weights[part]


class Encoding:
    """A `ConversationSet` that grows document by document, so that a file never has to be in memory as a whole.

    Of a plain text all is trained; of a conversation, the assistant's answers. It takes 3 bytes of memory per token (5
    where the vocabulary is above 65,536), and 8 per example.
    """

    def __init__(
        self, tokenizer: Tokenizer, context: int, template: ChatTemplate = CHATML, rule: Rule = "drop"
    ) -> None:
        self._tokenizer, self._context, self._template = tokenizer, context, template
        self._rule: Rule = rule
        self._counts: dict[Reason, int] = dict.fromkeys(get_args(Reason), 0)
        self._tokens = array("H" if tokenizer.vocab_size <= 1 << 16 else "I")
        self._weights, self._offsets, self._bytes = bytearray(), array("q", [0]), 0

    def add(self, document: str | Sequence[Message]) -> None:
        """Encode and fit a document, or count why it is left out. Raises UserError as `encode_conversation`."""
        example, reason = self._example(document)
        if reason is not None:
            self._counts[reason] += 1
        if example is None:
            return
        self._tokens.extend(example.ids)
        self._weights.extend(example.weights)
        self._offsets.append(len(self._tokens))
        pairs = zip(example.ids[1:], example.weights[1:], strict=True)
        self._bytes += len(self._tokenizer.decode_bytes(token for token, weight in pairs if weight))

    def _example(self, document: str | Sequence[Message]) -> tuple[Encoded | None, Reason | None]:
        if isinstance(document, str):
            return fit(encode_text(self._tokenizer, document), self._context, self._rule)
        if any(message["role"] == "assistant" and not message["content"].strip() for message in document):
            return None, "empty_answer"
        return fit(encode_conversation(self._tokenizer, document, self._template), self._context, self._rule)

    def finish(self, purpose: str = "train on") -> ConversationSet:
        """All that was added. Raises UserError where nothing is left."""
        if len(self._offsets) == 1:
            raise UserError(_nothing_left(self._counts, self._context, purpose))
        tokens = np.frombuffer(self._tokens, self._tokens.typecode)
        weights, offsets = np.frombuffer(self._weights, np.uint8), np.frombuffer(self._offsets, np.int64)
        return ConversationSet(tokens, weights, offsets, self._bytes, self._counts)


def conversation_set(
    documents: Iterable[str | Sequence[Message]],
    tokenizer: Tokenizer,
    context: int,
    template: ChatTemplate = CHATML,
    rule: Rule = "drop",
) -> ConversationSet:
    """Encode and fit every document. Raises UserError as `Encoding` does."""
    encoding = Encoding(tokenizer, context, template, rule)
    for document in documents:
        encoding.add(document)
    return encoding.finish()


def _nothing_left(counts: dict[Reason, int], context: int, purpose: str) -> str:
    if not any(counts.values()):
        return f"there is no document to {purpose}"
    said: dict[Reason, str] = {
        "too_long_dropped": f"longer than the context of {context}",
        "no_trained_token": "without an answer",
        "empty_answer": "with an empty answer",
    }
    reasons = ", ".join(f"{counts[reason]} {words}" for reason, words in said.items() if counts[reason])
    return f"no document is left to {purpose}: {reasons}"
