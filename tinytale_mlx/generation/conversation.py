"""A conversation that goes on: its messages, and the model that answers them."""

from collections.abc import Iterator

from ..models.transformer import Transformer
from ..randomness import key
from ..recipe import GenerateRecipe
from ..tokenizers import Tokenizer
from .engine import Completion, stream_text
from .prompts import chat_prompt, stop_ids, text_prompt


class Conversation:
    """`answer(text)` streams the model's reply.

    With `messages_known`, turns are messages in the chat template; otherwise the model continues the text that
    both have written so far.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        settings: GenerateRecipe,
        seed: int,
        messages_known: bool,
    ):
        self._model, self._tokenizer, self._settings, self._seed = model, tokenizer, settings, seed
        self._messages_known = messages_known
        self.reset()

    def reset(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.turns = 0
        self.forgotten = False

    def answer(self, text: str) -> Iterator[str]:
        """Pieces of the reply to `text`. An answer that is broken off stays in the conversation as far as it came.

        UserError for text that the tokenizer can't write; the conversation then is as it was.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt = self._prompt(messages)
        self.messages = messages
        self.turns += 1
        completion = Completion()
        try:
            yield from stream_text(
                self._model,
                self._tokenizer,
                prompt,
                self._settings,
                key(self._seed, "chat", self.turns),
                stop_ids(self._tokenizer),
                completion,
            )
        finally:
            self.messages.append({"role": "assistant", "content": completion.text})

    def _prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """The ids to continue; the oldest turns go first where they leave no half a window for the answer."""
        room = self._model.config.context // 2
        kept = messages
        while len(ids := self._encode(kept)) > room and len(kept) > 2:
            kept = kept[2:]
        self.forgotten = len(kept) < len(messages)
        return ids

    def _encode(self, messages: list[dict[str, str]]) -> list[int]:
        if self._messages_known:
            return chat_prompt(self._tokenizer, messages)
        return text_prompt(self._tokenizer, "".join(message["content"] for message in messages))
