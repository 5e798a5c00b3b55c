"""From what a person writes to the ids that a model continues, and the ids that end its answer."""

from collections.abc import Sequence

from ..tokenizers import Tokenizer
from ..tokenizers.chat import ChatTemplate, Message, encode_prompt
from ..tokenizers.special import IM_END, IM_START
from ..tokenizers.templates import CHATML


def text_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """A document that has begun: [BOS] + text, where the tokenizer begins texts so; "" is BOS or a line break."""
    if tokenizer.bos_id is not None and (tokenizer.begins_with_bos or not text):
        return [tokenizer.bos_id, *tokenizer.encode(text)]
    return tokenizer.encode(text or "\n")


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[Message], template: ChatTemplate = CHATML) -> list[int]:
    """[BOS] + the conversation, up to where the assistant speaks next."""
    return encode_prompt(tokenizer, messages, template)


def continuation_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The messages as one text that goes on, for a model that has never read a conversation."""
    return text_prompt(tokenizer, "".join(message["content"] for message in messages))


def too_long(prompt: Sequence[int], context: int | None) -> str | None:
    """What to say of a prompt of which the model reads only the end; None where it reads all."""
    if context is None or len(prompt) <= context:
        return None
    return f"the prompt has {len(prompt):,} tokens and the model's context is {context:,}: it reads the end of it"


def stop_ids(tokenizer: Tokenizer) -> set[int]:
    """The end of a document, and of a message where the tokenizer has chat markers."""
    return {i for i in (tokenizer.eos_id, tokenizer.special_ids.get(IM_END)) if i is not None}


def has_chat_markers(tokenizer: Tokenizer) -> bool:
    return IM_START in tokenizer.special_ids and IM_END in tokenizer.special_ids
