"""Conversations as ids, with a mark on those that the assistant says: the only ones that fine-tuning trains.

A conversation is written piece by piece, and the mark is put on while the ids are made. Nothing is searched for in
text or ids afterwards, so the mask is right whatever the tokenizer makes of a text. An answer is always encoded
apart from what stands before it: hence a prompt is a prefix of the same conversation with its answer.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import UserError
from .base import Tokenizer
from .jinja import JinjaTemplate
from .templates import CHATML, TEMPLATES, Encoded, Message, Piece, Special, Template

ChatTemplate = Template | JinjaTemplate
"""One of ours, or another model's own."""


def render(
    messages: Iterable[Message], add_generation_prompt: bool = False, template: Template = CHATML, eos: str = ""
) -> str:
    """The conversation as text; with `add_generation_prompt`, up to where the assistant's answer starts.

    eos: how the tokenizer writes the end of a document, for the templates that use it.
    """
    pieces: list[Piece] = []
    for role, content in _checked(messages, template):
        turn = template.turns[role]
        pieces += [*turn.before, turn.lead, content, *turn.after]
    pieces += template.answer.before if add_generation_prompt else ()
    return "".join(piece if isinstance(piece, str) else piece.name or eos for piece in pieces)


def encode_chat(
    tokenizer: Tokenizer,
    messages: Iterable[Message],
    add_generation_prompt: bool = False,
    template: Template = CHATML,
) -> list[int]:
    """The conversation as ids, without BOS. A marker written in a message stays text: nobody can forge a role.

    Raises:
        UserError: a message that is none, a role that the template lacks, a marker that the tokenizer lacks.
    """
    writer = _Writer(tokenizer, template)
    writer.add_messages(messages)
    if add_generation_prompt:
        writer.add(template.answer.before)
    return writer.finish().ids


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message], template: ChatTemplate = CHATML) -> list[int]:
    """BOS and the conversation up to where the assistant's answer starts: what a model continues.

    A prefix of `encode_conversation` of the same messages and any answer. Raises UserError as `encode_chat`.
    """
    if isinstance(template, JinjaTemplate):
        return template.prompt(tokenizer, messages)
    return [*_begin(tokenizer, template), *encode_chat(tokenizer, messages, True, template)]


def encode_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], template: ChatTemplate = CHATML, trained_from: int = 0
) -> Encoded:
    """BOS and the conversation. Every answer is trained, with the special token that ends it.

    trained_from: index of a message; answers before it are only read. Raises UserError as `encode_chat`.
    """
    if isinstance(template, JinjaTemplate):
        return template.conversation(tokenizer, messages, trained_from)
    writer = _Writer(tokenizer, template)
    writer.add_messages(messages, trained_from)
    written, begin = writer.finish(), _begin(tokenizer, template)
    return Encoded([*begin, *written.ids], [*[0] * len(begin), *written.weights])


def encode_text(tokenizer: Tokenizer, text: str) -> Encoded:
    """BOS, a text without roles, EOS, the two where the tokenizer has them. All of it is trained but BOS."""
    begin, end = ([] if token is None else [token] for token in (tokenizer.bos_id, tokenizer.eos_id))
    ids = [*tokenizer.encode(text, special=False), *end]
    return Encoded([*begin, *ids], [*[0] * len(begin), *[1] * len(ids)])


def marker_id(tokenizer: Tokenizer, name: str) -> int:
    """The id of a chat marker. UserError if the tokenizer was trained without it."""
    try:
        return tokenizer.special_ids[name]
    except KeyError:
        raise UserError(
            f"this tokenizer has no {name} token, which conversations need; add their markers with `tinytale tokenizer "
            "add`, or before training with tokenizer.special_tokens"
        ) from None


def template_from(source: str) -> ChatTemplate:
    """The template with this Jinja text, one of ours where it is theirs. Raises UserError as `JinjaTemplate`."""
    ours = next((template for template in TEMPLATES.values() if template.jinja == source), None)
    return ours or JinjaTemplate(source)


def save_template(directory: str | Path, template: ChatTemplate = CHATML) -> None:
    """Write chat_template.jinja. For chat models only: with it mlx-lm treats every prompt as a message."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    (Path(directory) / "chat_template.jinja").write_text(template.jinja, encoding="utf-8", newline="\n")


class _Writer:
    """Ids and weights, piece by piece. Neighbouring pieces of text are encoded as one."""

    def __init__(self, tokenizer: Tokenizer, template: Template) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._special_ids = {special: _special_id(tokenizer, template, special) for special in template.specials}
        self._ids: list[int] = []
        self._weights: list[int] = []
        self._text = ""  # not yet encoded, and not trained

    def add_messages(self, messages: Iterable[Message], trained_from: int = 0) -> None:
        for index, (role, content) in enumerate(_checked(messages, self._template)):
            turn = self._template.turns[role]
            if role != "assistant":
                self.add((*turn.before, content, *turn.after))
                continue
            end = next(i for i, piece in enumerate(turn.after, 1) if isinstance(piece, Special))
            self.add(turn.before)
            self._flush(0)  # an answer shares no token with what is before it
            self.add((turn.lead, content, *turn.after[:end]), weight=int(index >= trained_from))
            self.add(turn.after[end:])

    def add(self, pieces: tuple[Piece, ...], weight: int = 0) -> None:
        for piece in pieces:
            if isinstance(piece, Special):
                self._flush(weight)
                self._put([self._special_ids[piece]], weight)
            else:
                self._text += piece

    def finish(self) -> Encoded:
        self._flush(0)
        return Encoded(self._ids, self._weights)

    def _flush(self, weight: int) -> None:
        if self._text:
            self._put(self._tokenizer.encode(self._text, special=False), weight)
            self._text = ""

    def _put(self, ids: list[int], weight: int) -> None:
        self._ids += ids
        self._weights += [weight] * len(ids)


def _special_id(tokenizer: Tokenizer, template: Template, special: Special) -> int:
    if special.name is not None:
        return marker_id(tokenizer, special.name)
    if tokenizer.eos_id is None:
        raise UserError(f"this tokenizer has no end-of-text token (eos), which the template {template.name} needs")
    return tokenizer.eos_id


def _begin(tokenizer: Tokenizer, template: Template) -> list[int]:
    """[BOS], or nothing: there may be none, or it may be the marker that a message begins with anyway."""
    bos = tokenizer.bos_id
    return [] if bos is None or Special(tokenizer.specials.bos) in template.specials else [bos]


def _checked(messages: Iterable[Message], template: Template) -> Iterator[tuple[str, str]]:
    for number, message in enumerate(messages, start=1):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise UserError(f"message {number} needs a role and a content, both text")
        if role not in template.turns:
            known = ", ".join(template.turns)
            raise UserError(f"message {number} has the role {role!r}; the template {template.name} has only {known}")
        yield role, content
