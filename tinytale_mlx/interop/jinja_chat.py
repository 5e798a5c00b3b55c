"""Conversations in somebody else's chat template: Jinja text, rendered as transformers renders it, then encoded."""

import datetime
from collections.abc import Callable, Sequence

from ..errors import UserError
from ..tokenizers.base import Tokenizer
from ..tokenizers.chat import Message


def jinja_prompt(tokenizer: Tokenizer, source: str) -> Callable[[Sequence[Message]], list[int]]:
    """A function from messages to the ids up to where the assistant speaks next.

    The template runs in Jinja's sandbox. A marker that a message spells is a marker, as in transformers.
    Raises UserError for a template that is none; the function does where the template refuses the messages.
    """
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise UserError(f"the chat template is not valid: {error}") from None
    roles = {f"{role}_token": name for role, name in tokenizer.specials.roles.items()}

    def encode(messages: Sequence[Message]) -> list[int]:
        try:
            text = template.render(messages=list(messages), add_generation_prompt=True, **roles)
        except TemplateError as error:
            raise UserError(f"the model's chat template refuses this conversation: {error}") from None
        return tokenizer.encode(text)

    return encode
