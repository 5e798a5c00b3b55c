"""What one can say to `tinytale chat` that is not meant for the model: lines that begin with a slash."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tinytale_mlx.errors import UserError

from .terminal import say

if TYPE_CHECKING:
    from tinytale_mlx.generation.conversation import Conversation

HELP = "/reset forgets the conversation, /help shows all commands, /quit (or Ctrl-D) ends. Ctrl-C stops an answer."
COMMANDS = {
    "/help": "shows this",
    "/reset": "forgets the conversation",
    "/undo": "takes back the last question and its answer",
    "/system TEXT": "tells the model something beforehand; without TEXT shows it, with - takes it back",
    "/temp NUMBER": "sets the temperature; without NUMBER shows it",
    "/stats": "tokens, speed and how much of the context is used",
    "/save FILE": "writes the conversation to a file, as JSON",
    "/load FILE": "goes on with a conversation that was saved",
    "/quit": "ends, as Ctrl-D does",
}


class Commands:
    """`run(line)` does what the line says. What went wrong is one sentence on stderr."""

    def __init__(self, conversation: "Conversation"):
        self._conversation = conversation
        self._known: dict[str, Callable[[str], str]] = {
            "/help": self._help,
            "/reset": self._reset,
            "/undo": self._undo,
            "/system": self._system,
            "/temp": self._temperature,
            "/stats": self._stats,
            "/save": self._save,
            "/load": self._load,
        }

    def run(self, line: str) -> bool:
        """False where the line ends the conversation."""
        name, _, argument = line.partition(" ")
        if name in ("/quit", "/exit"):
            return False
        command = self._known.get(name)
        try:
            print(f"there is no command {name}; {HELP}" if command is None else command(argument.strip()))
        except UserError as error:
            say(str(error))
        return True

    def figures(self) -> str:
        """Of the last answer."""
        last, conversation = self._conversation.last, self._conversation
        return (
            f"[{last.tokens:,} tokens, {last.tokens_per_second:,.0f} tokens/s, "
            f"context {conversation.used:,} of {conversation.context:,}]"
        )

    def _help(self, _: str) -> str:
        width = max(map(len, COMMANDS))
        return "\n".join(f"{name:{width}}  {what}" for name, what in COMMANDS.items()) + "\nCtrl-C stops an answer."

    def _reset(self, _: str) -> str:
        self._conversation.reset()
        return "(a new conversation)"

    def _undo(self, _: str) -> str:
        return "(taken back)" if self._conversation.undo() else "(there is nothing to take back)"

    def _system(self, text: str) -> str:
        if text:
            self._conversation.system = "" if text == "-" else text
        return f"(system: {self._conversation.system or 'nothing'})"

    def _temperature(self, text: str) -> str:
        from .settings import with_options

        if text:
            try:
                value = float(text)
            except ValueError:
                raise UserError(f"/temp takes a number, 0 for greedy, not {text!r}") from None
            self._conversation.settings = with_options(self._conversation.settings, temperature=value)
        return f"(temperature {self._conversation.settings.temperature:g})"

    def _stats(self, _: str) -> str:
        total, conversation = self._conversation.total, self._conversation
        return (
            f"(questions {len(conversation.messages) // 2:,}, written {total.tokens:,} tokens, "
            f"{total.tokens_per_second:,.0f} tokens/s, context {conversation.used:,} of {conversation.context:,})"
        )

    def _save(self, text: str) -> str:
        path = _file("/save", text)
        self._conversation.save(path)
        return f"(saved to {path})"

    def _load(self, text: str) -> str:
        path = _file("/load", text)
        self._conversation.load(path)
        return f"(goes on from {path}, questions {len(self._conversation.messages) // 2:,})"


def _file(command: str, text: str) -> Path:
    if not text:
        raise UserError(f"{command} takes the name of a file")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"there is nobody whose home {text.partition('/')[0]} is") from None
