"""Chat templates of other models: Jinja text that came with the model, rendered as transformers renders it.

Such a text only says how a conversation looks, not which part of it is an answer. A few mark that themselves, with
`{% generation %}` tags, which transformers introduced. Of the others it is found out: a conversation up to where the
assistant speaks, rendered as a prompt, has to be the beginning of the whole conversation; from there to the special
token right after the answer is what the model says. Where that does not hold, the template is refused: a mask that is
nearly right would teach nearly the right thing.
"""

import datetime
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .base import Tokenizer
from .templates import Encoded, Message

if TYPE_CHECKING:
    from jinja2 import Template as Compiled

Span = tuple[int, int]
"""Of characters."""
BEGIN, END = "\ufdd0", "\ufdd1"
"""Where marked text begins and ends: code points that are no characters, and that no text may hold."""
MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
DAY = datetime.datetime(2024, 7, 26)
"""What a template that writes today's date gets in training: the same examples are the same tokens tomorrow."""
WAY_OUT = "choose one that can be trained, such as --template chatml"


class JinjaTemplate:
    """Somebody's template. It runs in Jinja's sandbox. A marker that a message spells is a marker, as in transformers.

    Raises:
        UserError: the text is no template.
    """

    name = "own"

    def __init__(self, source: str, day: datetime.datetime | None = None):
        """day: what it takes for today; left out, today."""
        self.jinja, self._day = source, day
        self._marked = bool(MARK.search(source))
        self._compiled = _compile(source)

    def timeless(self) -> "JinjaTemplate":
        """The same, with `DAY` for today."""
        return JinjaTemplate(self.jinja, DAY)

    def prompt(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
        """The ids up to where the assistant speaks next. Raises UserError where the template refuses the messages."""
        return tokenizer.encode(_unmarked(self._text(tokenizer, messages, True)))

    def conversation(self, tokenizer: Tokenizer, messages: Sequence[Message], trained_from: int = 0) -> Encoded:
        """The whole conversation; trained is what the template marks, else every answer and the special token after it.

        trained_from: index of a message; answers before it are only read.

        Raises:
            UserError: the template refuses the messages, or which tokens are answers can't be told.
        """
        text = self._text(tokenizer, messages, False)
        if self._marked:
            spans, text = list(_marked_spans(text)), _unmarked(text)
        else:
            spans = list(self._answers(tokenizer, text, messages))
        return _encode(tokenizer, text, spans[_answers_in(messages[:trained_from]) :])

    def _text(self, tokenizer: Tokenizer, messages: Sequence[Message], prompt: bool) -> str:
        if any(mark in message["content"] for message in messages for mark in (BEGIN, END)):
            raise UserError("a message holds U+FDD0 or U+FDD1, which are no characters")
        roles = {f"{role}_token": name for role, name in tokenizer.specials.roles.items()}
        now = self._day or datetime.datetime.now()
        given = {"messages": [dict(one) for one in messages], "add_generation_prompt": prompt, "tools": None}
        try:
            return self._compiled.render(**given, documents=None, strftime_now=now.strftime, **roles)
        except Exception as error:  # whatever a stranger's text comes upon
            reason = " ".join(str(error).split())
            raise UserError(f"the model's chat template refuses this conversation: {reason}") from None

    def _answers(self, tokenizer: Tokenizer, text: str, messages: Sequence[Message]) -> Iterator[Span]:
        specials = re.compile("|".join(map(re.escape, sorted(tokenizer.special_ids, key=len, reverse=True))) or "$^")
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._text(tokenizer, messages[:number], True)
            if not text.startswith(before):
                raise UserError(
                    f"the model's chat template writes what is before message {number + 1} in another way once the "
                    f"conversation goes on, so that its answer can't be told from the rest; {WAY_OUT}"
                )
            end = _end(text, len(before), message["content"].strip(), specials)
            if end is None:
                raise UserError(
                    f"the model's chat template has no mark for the end of an answer (message {number + 1}), so that "
                    f"the model would not learn to stop; {WAY_OUT}"
                )
            yield len(before), end


def _compile(source: str) -> "Compiled":
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Marks(Extension):
        """`{% generation %}` ... `{% endgeneration %}`."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

        def mark(self, caller: Callable[[], str]) -> str:
            return f"{BEGIN}{caller()}{END}"

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Marks, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise UserError(f"the chat template is not valid: {error}") from None


# ---------------------------------------------------------------------- where answers are
def _answers_in(messages: Sequence[Message]) -> int:
    return sum(message["role"] == "assistant" for message in messages)


def _end(text: str, begin: int, answer: str, specials: re.Pattern[str]) -> int | None:
    """The end of the first special token that stands right after the answer; what the answer spells is not it."""
    for found in specials.finditer(text, begin):
        if text[begin : found.start()].rstrip().endswith(answer):
            return found.end()
    return None


def _marked_spans(text: str) -> Iterator[Span]:
    """Where in the text without marks is what stands between them."""
    place, begin = 0, 0
    for piece in re.split(f"([{BEGIN}{END}])", text):
        if piece == BEGIN:
            begin = place
        elif piece == END:
            yield begin, place
        else:
            place += len(piece)


def _unmarked(text: str) -> str:
    return text.replace(BEGIN, "").replace(END, "")


# ---------------------------------------------------------------------- characters to ids
def _encode(tokenizer: Tokenizer, text: str, spans: Sequence[Span]) -> Encoded:
    """The ids of the text, those of the spans with weight 1."""
    borders = [0, *(place for span in spans for place in span), len(text)]
    pieces = [tokenizer.encode(text[a:b]) for a, b in pairwise(borders)]
    if list(chain(*pieces)) != tokenizer.encode(text):
        pieces = list(_pieces(tokenizer, text, borders))
    weights = ([number % 2] * len(piece) for number, piece in enumerate(pieces))
    return Encoded(list(chain(*pieces)), list(chain(*weights)))


def _pieces(tokenizer: Tokenizer, text: str, borders: Sequence[int]) -> Iterator[list[int]]:
    """The ids between the borders, for a tokenizer that begins a text in a way of its own (SentencePiece's space), or
    that would join what is left and right of a border. No token does here: a prompt ends where the answer begins."""
    ids: list[int] = []
    for a, b in pairwise(borders):
        whole = tokenizer.encode(text[:b])
        new = whole[len(ids) :]
        if whole[: len(ids)] != ids:
            new = tokenizer.encode(text[a:b])
            if tokenizer.decode_bytes(new, skip_special=False) != text[a:b].encode():
                raise UserError(f"this tokenizer can't tell an answer from what is around it; {WAY_OUT}")
        ids += new
        yield new
