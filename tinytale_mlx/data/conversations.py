"""Rows of the common instruction and chat data sets as conversations: lists of messages with a role and a content.

Read are chats as OpenAI, mlx-lm and TRL write them (`messages`), ShareGPT's (`conversations` or `items`, of `from`
and `value`), `prompt` with `completion` or `response`, Alpaca's `instruction`, `input`, `output` and Dolly's
`instruction`, `context`, `response`, and `question` with `answer` (TinyLLM, GSM8K). Other fields are ignored.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..tokenizers.templates import ROLES

Messages = list[dict[str, str]]
"""[{"role": "user", "content": "..."}, ...]; the roles are system, user, assistant and tool."""

CHATS = ("messages", "conversations", "items")
SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant"}
"""ShareGPT's names; the usual ones stand for themselves."""
ANSWERS = {
    "prompt": ("completion", "response"),
    "instruction": ("output", "response"),
    "question": ("answer", "response"),
}
"""By the field that asks, those that may hold the answer."""
INPUTS = ("input", "context")


def conversation_from(row: Mapping[str, Any], where: str) -> Messages | None:
    """The conversation in a row, or None if the row is none. At least one answer is in it, and none is blank.

    A prompt with a completion and a `label` is a preference (see `preferences.py`), not an example to follow.

    Raises:
        UserError: the row has the fields of a conversation, but one is missing, blank or no text, or a role is
            unknown. It begins with `where`.
    """
    for key in CHATS:
        if key in row:
            return checked(messages_in(row, key, where), where)
    asking = [key for key in ANSWERS if key in row]
    if not asking or row.get("label") is not None:
        return None
    pairs = [(asks, answers) for asks in asking for answers in ANSWERS[asks] if answers in row]
    if not pairs:
        raise UserError(f"{where}: there is {_a(asking[0])} and no {' or '.join(ANSWERS[asking[0]])} {fields(row)}")
    asks, answers = pairs[0]
    return checked([*question_in(row, asks, where), *answer_in(row, answers, where)], where)


def question_in(row: Mapping[str, Any], asks: str, where: str) -> Messages:
    """What a row asks in its field `asks`, one of those of `ANSWERS`, after its `system` message if it has one.

    A prompt may be blank, since a text can begin with nothing; an instruction or a question may not.
    """
    system = text_in(row, "system", where) if row.get("system") is not None else ""
    before = [{"role": "system", "content": system}] if system.strip() else []
    if asks == "prompt" and isinstance(row[asks], list):
        return [*before, *messages_in(row, asks, where)]
    asked = text_in(row, asks, where)
    if asks != "prompt" and not asked.strip():
        raise UserError(f"{where}: the {asks} is empty")
    given = next((key for key in INPUTS if asks == "instruction" and row.get(key) is not None), None)
    if given and (more := text_in(row, given, where)).strip():
        asked = f"{asked}\n\n{more}"
    return [*before, {"role": "user", "content": asked}]


def answer_in(row: Mapping[str, Any], key: str, where: str) -> Messages:
    """The answer in a field: a text, which must not be blank, or messages."""
    if isinstance(row[key], list):
        return messages_in(row, key, where)
    answer = text_in(row, key, where)
    if not answer.strip():
        raise UserError(f"{where}: the {key} is empty")
    return [{"role": "assistant", "content": answer}]


def messages_in(row: Mapping[str, Any], key: str, where: str) -> Messages:
    """The list of messages in a field, as role and content or as from and value."""
    if not isinstance(row[key], list) or not row[key]:
        raise UserError(f"{where}: {key!r} holds {kind(row[key])}, and a list of messages is needed")
    return [_message(message, f"{where}, message {number}") for number, message in enumerate(row[key], 1)]


def _message(message: Any, where: str) -> dict[str, str]:
    keys = next((pair for pair in (("role", "content"), ("from", "value")) if _has(message, pair)), None)
    if keys is None:
        raise UserError(f"{where}: a message needs a role and a content (or from and value)")
    role = message[keys[0]]
    role = SPEAKERS.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise UserError(f"{where}: the role {role!r} is not one of {', '.join(ROLES)}")
    if message.get("tool_calls"):
        raise UserError(f"{where} calls a tool in a field of its own (tool_calls), which no chat template here writes")
    return {"role": role, "content": text_in(message, keys[1], where)}


def _has(message: Any, keys: tuple[str, str]) -> bool:
    return isinstance(message, dict) and all(key in message for key in keys)


def checked(messages: Messages, where: str) -> Messages:
    """The messages, if the assistant says something in them and is never silent."""
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    if not answers:
        raise UserError(f"{where}: the assistant says nothing, so there is nothing to learn")
    if not all(answer.strip() for answer in answers):
        raise UserError(f"{where}: an answer of the assistant is empty")
    return messages


# ---------------------------------------------------------------------- fields of a row
def text_in(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text in a field. Raises UserError if it holds something else."""
    if not isinstance(row[key], str):
        raise UserError(f"{where}: the field {key!r} holds {kind(row[key])}, not text")
    try:
        if not row[key].isascii():
            row[key].encode()
    except UnicodeEncodeError as error:  # JSON can spell "\\ud83d", which no UTF-8 file and no tokenizer can hold
        raise UserError(f"{where}: the field {key!r} holds half of a surrogate pair, which is not text") from error
    return row[key]


def fields(row: Mapping[str, Any]) -> str:
    """The names of a row's fields, for an error."""
    return f"(fields: {', '.join(map(str, row)) or 'none'})"


def kind(value: Any) -> str:
    """What JSON calls a value, for an error."""
    if value is None:
        return "null"
    if isinstance(value, (list, dict)) and not value:
        return f"an empty {'list' if isinstance(value, list) else 'object'}"
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
