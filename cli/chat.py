"""`tinytale chat`: a conversation with a model, or, with a model that knows only text, a tale written in turns."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tinytale_mlx import run
from tinytale_mlx.errors import UserError

from .options import MaxNewTokens, Model, Runs, Seed, Temperature, TopK, TopP, printable

if TYPE_CHECKING:
    from tinytale_mlx.generation.conversation import Conversation

HELP = "/reset forgets the conversation, /help says this, /quit (or Ctrl-D) ends. Ctrl-C stops an answer."


def chat(
    model: Model = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    seed: Seed = 0,
    runs: Runs = run.ROOT,
) -> None:
    """Talk to a model: it streams its answer and remembers the conversation as far as its context reaches.

    A model that has never read a conversation continues what you write instead.

    Examples:

        tinytale chat

        tinytale chat my-run --temperature 0.5
    """
    from tinytale_mlx import stages
    from tinytale_mlx.generation.conversation import Conversation

    from .settings import with_options

    loaded = stages.load(model, runs)
    settings = with_options(
        loaded.settings, temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=max_new_tokens
    )
    conversation = Conversation(loaded.model, loaded.tokenizer, settings, seed, messages_known=loaded.can_chat)
    interactive = sys.stdin.isatty()
    if interactive:
        kind = (
            "Ask it for a tale"
            if loaded.can_chat
            else "It has read text, not conversations, and goes on where you stop"
        )
        print(f"{loaded.path}: {kind}. {HELP}")
    for line in _lines(interactive):
        if line in ("/quit", "/exit"):
            break
        if line == "/help":
            print(HELP)
        elif line == "/reset":
            conversation.reset()
            print("(a new conversation)")
        elif line.startswith("/"):
            print(f"there is no command {line.split()[0]}; {HELP}")
        elif line:
            _answer(conversation, line)


def _lines(interactive: bool) -> Iterator[str]:
    while True:
        try:
            yield input("\nyou> " if interactive else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /quit ends)")


def _answer(conversation: "Conversation", line: str) -> None:
    try:
        for piece in conversation.answer(line):
            print(printable(piece), end="", flush=True)
    except KeyboardInterrupt:
        print(" ...", end="")
    except UserError as error:  # such as a character that the model has never seen
        print(f"tinytale: {error}", file=sys.stderr)
    print()
    if conversation.forgotten:
        print("(the oldest part no longer fits the model's context and is forgotten)", file=sys.stderr)
