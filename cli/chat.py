"""`tinytale chat`: a conversation with a model, or, with a model that knows only text, a tale written in turns."""

import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tinytale_mlx import run
from tinytale_mlx.errors import UserError

from .chat_commands import HELP, Commands
from .groups import Sampling, spread
from .options import Adapter, Model, Runs, Seed, load_model, printable
from .terminal import Interrupts, coloured, dimmed, edit_lines, has_colour, plain_warnings, say, well_formed

if TYPE_CHECKING:
    from tinytale_mlx.generation.conversation import Conversation
    from tinytale_mlx.stages import Loaded


@spread
def chat(
    model: Model = None,
    adapter: Adapter = None,
    system: Annotated[str, typer.Option("--system", help="What the model is told before the first question.")] = "",
    *,
    sampling: Sampling,
    show_probabilities: Annotated[
        bool, typer.Option("--show-probabilities", help="Colour each token by how likely the model found it.")
    ] = False,
    seed: Seed = 0,
    runs: Runs = run.ROOT,
) -> None:
    """Talk to a model: it streams its answer and remembers the conversation as far as its context reaches.

    A model that has never read a conversation continues what you write instead.

    Examples:

        tinytale chat

        tinytale chat my-run --temperature 0.5

        tinytale chat --system "You are a friendly fox." --show-probabilities
    """
    from tinytale_mlx.generation.conversation import Conversation

    from .settings import with_options

    loaded = load_model(model, adapter, runs)
    if loaded.note:
        say(loaded.note)
    settings = with_options(loaded.settings, **sampling.given())
    if show_probabilities and not has_colour(sys.stdout):
        say("--show-probabilities needs a terminal with colours, so there are none")
        show_probabilities = False
    conversation = Conversation(
        loaded.model,
        loaded.tokenizer,
        settings,
        seed,
        loaded.encode,
        loaded.stop,
        messages_known=loaded.can_chat,
        alternatives=0 if show_probabilities else None,
    )
    conversation.system = system
    with plain_warnings():
        _talk(loaded, conversation, show_probabilities)


def _talk(loaded: "Loaded", conversation: "Conversation", show_probabilities: bool) -> None:
    interactive = sys.stdin.isatty()
    if interactive:
        edit_lines()
        kind = (
            "Ask it for a tale"
            if loaded.can_chat
            else "It has read text, not conversations, and goes on where you stop"
        )
        print(f"{loaded.path}: {kind}. {HELP}")
    commands = Commands(conversation)
    with Interrupts() as interrupts:
        for line in _lines(interactive, interrupts):
            if line.startswith("/"):
                if not commands.run(line):
                    break
            elif line:
                _answer(conversation, line, show_probabilities, interrupts)
                if interactive:
                    print(dimmed(commands.figures()))


def _lines(interactive: bool, interrupts: Interrupts) -> Iterator[str]:
    """What is typed. Ctrl-C at the prompt says how to leave, and the second time leaves."""
    insisting = False
    while True:
        try:
            with interrupts.allowed():
                line = input("\nyou> " if interactive else "")
        except EOFError:
            break
        except KeyboardInterrupt:
            if insisting:
                break
            insisting = True
            print("\n(once more, Ctrl-D or /quit ends)")
            continue
        insisting = False
        yield well_formed(line).strip()
    if interactive:
        print()


def _answer(conversation: "Conversation", line: str, show_probabilities: bool, interrupts: Interrupts) -> None:
    pieces = conversation.answer(line)
    try:
        while True:
            with interrupts.allowed():
                piece = next(pieces, None)
            if piece is None:
                break
            said = printable(piece)
            if show_probabilities and (noted := conversation.completion.logprobs):
                said = coloured(said, math.exp(noted[-1].logprob))
            print(said, end="", flush=True)
    except KeyboardInterrupt:
        print(" ...", end="")
    except UserError as error:  # such as a character that the model has never seen
        say(str(error))
    finally:
        pieces.close()
    print()
    if conversation.forgotten:
        print("(the oldest part no longer fits the model's context and is forgotten)", file=sys.stderr)
