r"""Conversations as text and as ids. Each message becomes <|im_start|>role\ncontent<|im_end|>\n.

That is ChatML, OpenAI's form and that of Qwen and many others, so their tools read our conversations.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import UserError
from .base import Tokenizer
from .special import IM_END, IM_START

Message = Mapping[str, str]
"""{"role": "user", "content": "..."}; other keys are ignored."""

CHATML = (
    "{% if bos_token %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""BOS, then the same as `render`: the Jinja template that transformers and mlx-lm use for a whole prompt."""


def render(messages: Iterable[Message], add_generation_prompt: bool = False) -> str:
    """The conversation as text; with `add_generation_prompt`, up to where the assistant's answer starts."""
    turns = [f"{IM_START}{role}\n{content}{IM_END}\n" for role, content in _checked(messages)]
    return "".join(turns) + (f"{IM_START}assistant\n" if add_generation_prompt else "")


def encode_chat(tokenizer: Tokenizer, messages: Iterable[Message], add_generation_prompt: bool = False) -> list[int]:
    """The conversation as ids. A marker written in a message stays text, so nobody can speak in another role.

    Role and content are encoded apart: a prompt is always a prefix of the same conversation with its answer.
    """
    start, end = marker_id(tokenizer, IM_START), marker_id(tokenizer, IM_END)

    def plain(text: str) -> list[int]:
        return tokenizer.encode(text, special=False)

    ids: list[int] = []
    for role, content in _checked(messages):
        ids += [start, *plain(f"{role}\n"), *plain(content), end, *plain("\n")]
    return [*ids, start, *plain("assistant\n")] if add_generation_prompt else ids


def marker_id(tokenizer: Tokenizer, name: str) -> int:
    """The id of a chat marker. ValueError if the tokenizer was trained without it."""
    try:
        return tokenizer.special_ids[name]
    except KeyError:
        raise UserError(f"this tokenizer has no {name} token, which conversations need") from None


def save_template(directory: str | Path) -> None:
    """Write chat_template.jinja. For chat models only: with it mlx-lm treats every prompt as a message."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    (Path(directory) / "chat_template.jinja").write_text(CHATML, encoding="utf-8", newline="\n")


def _checked(messages: Iterable[Message]) -> Iterable[tuple[str, str]]:
    for number, message in enumerate(messages, start=1):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise UserError(f"message {number} needs a role and a content, both text")
        if IM_START in role or IM_END in role or "\n" in role:
            raise UserError(f"message {number} has the role {role!r}; a role is one word")
        yield role, content
