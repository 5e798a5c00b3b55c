r"""Chat templates as data: what stands before and after a message of each role.

From these few pieces follow the ids, the loss mask (both in `chat.py`) and the Jinja text that transformers and
mlx-lm read, so the three cannot disagree. Systems that render text first and search it for the answers can: one of
those that tinytale learns from found none after an update of its tokenizer, and trained on nothing.

The five: ChatML (OpenAI's, that of Qwen and many others); the role markers of lilLM, `<r0>user<r1>...`;
`Question: ...\nAnswer: ...` of TinyLLM; Alpaca's headings (Taori et al. 2023); and plain text that goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby

from ..errors import UserError
from .special import IM_END, IM_START

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Special:
    """A special token by its name; None is whatever the tokenizer ends a document with (`EOS`)."""

    name: str | None


Message = Mapping[str, str]
"""{"role": "user", "content": "..."}; other keys are ignored."""


@dataclass(frozen=True)
class Encoded:
    """ids, and for each the weight, 0 or 1, of predicting it: `weights[i]` belongs to the target `ids[i]`."""

    ids: list[int]
    weights: list[int]

    def __len__(self) -> int:
        return len(self.ids)


EOS = Special(None)
Piece = str | Special
"""Plain text stays text, even where it is spelled like a special token."""


@dataclass(frozen=True)
class Turn:
    """What surrounds a message.

    An answer is trained together with what comes after it, up to the first special token there. `lead` is text that
    belongs to the answer: "Answer:" and then " Yes" are the tokens of running text, "Answer: " and then "Yes" are not.
    """

    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    lead: str = ""


@dataclass(frozen=True)
class Template:
    """A conversation is BOS (where the tokenizer has one), then every message with its role's turn around it.

    Raises:
        UserError: no turn for the assistant, or none that says with a special token where an answer ends.
    """

    name: str
    turns: Mapping[str, Turn]

    def __post_init__(self) -> None:
        if "assistant" not in self.turns:
            raise UserError(f"the template {self.name} has no place for the assistant, so there is nothing to learn")
        if not any(isinstance(piece, Special) for piece in self.answer.after):
            raise UserError(f"the template {self.name} has no special token after an answer, so that none would end")

    @property
    def answer(self) -> Turn:
        return self.turns["assistant"]

    @property
    def specials(self) -> list[Special]:
        """The special tokens that it needs, each once."""
        pieces = [piece for turn in self.turns.values() for piece in (*turn.before, *turn.after)]
        return list(dict.fromkeys(piece for piece in pieces if isinstance(piece, Special)))

    @property
    def jinja(self) -> str:
        """The same as Jinja text: the content of chat_template.jinja."""
        before = {role: _jinja((*turn.before, turn.lead)) for role, turn in self.turns.items()}
        after = {role: _jinja(turn.after) for role, turn in self.turns.items()}
        # Some tokenizers name a marker as their BOS; a conversation does not begin with it twice.
        names = [special.name for special in self.specials if special != EOS]
        begin = f"bos_token and bos_token not in {names}" if names else "bos_token"
        return (
            f"{{% set before = {_jinja_map(before)} %}}{{% set after = {_jinja_map(after)} %}}"
            f"{{% if {begin} %}}{{{{ bos_token }}}}{{% endif %}}"
            "{% for message in messages %}"
            "{{ before[message['role']] + message['content'] + after[message['role']] }}"
            "{% endfor %}"
            f"{{% if add_generation_prompt %}}{{{{ {_jinja(self.answer.before)} }}}}{{% endif %}}"
        )


def _jinja(pieces: tuple[Piece, ...]) -> str:
    """An expression for the pieces joined: '<|im_start|>user\\n', or 'Bye.' + eos_token."""
    names = [piece if isinstance(piece, str) else piece.name for piece in pieces]
    runs = [(absent, "".join(filter(None, run))) for absent, run in groupby(names, lambda name: name is None)]
    return " + ".join("eos_token" if absent else repr(text) for absent, text in runs) or "''"


def _jinja_map(expressions: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{role!r}: {expression}" for role, expression in expressions.items()) + "}"


_FIRST = Turn((), ("\n\n",))  # of the system, where a template has no name for it
CHATML = Template("chatml", {role: Turn((Special(IM_START), f"{role}\n"), (Special(IM_END), "\n")) for role in ROLES})
LILLM = Template(
    "lillm",
    {
        role: Turn((Special("<r0>"), role, Special("<r1>")), (EOS if role == "assistant" else Special("<r2>"),))
        for role in ROLES
    },
)
QUESTION = Template(
    "question",
    {"system": _FIRST, "user": Turn(("Question: ",), ("\n",)), "assistant": Turn(("Answer:",), (EOS,), lead=" ")},
)
ALPACA = Template(
    "alpaca",
    {
        "system": _FIRST,
        "user": Turn(("### Instruction:\n",), ("\n\n",)),
        "assistant": Turn(("### Response:\n",), (EOS,)),
    },
)
PLAIN = Template("plain", {"system": _FIRST, "user": Turn((), ()), "assistant": Turn((), (EOS,))})

TEMPLATES = {template.name: template for template in (CHATML, LILLM, QUESTION, ALPACA, PLAIN)}


def find_template(name: str) -> Template:
    """The template of this name. Raises UserError, with the nearest name, if there is none."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    close = get_close_matches(name, TEMPLATES, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(TEMPLATES)}"
    raise UserError(f"there is no chat template {name!r}; {hint}")
