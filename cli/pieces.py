"""How a text is cut into tokens, for eyes: in alternating colours on a terminal that has them, else between bars."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from tinytale_mlx.tokenizers.inspection import Piece

COLOURS = ("black on cyan", "black on yellow")  # among the sixteen that every terminal with colours has
SPECIAL = "bright_white on magenta"


def show(console: Console, pieces: Iterable["Piece"]) -> None:
    show_pieces(console, [(one.shown, one.special) for one in pieces])


def show_pieces(console: Console, parts: Iterable[tuple[str, bool]]) -> None:
    """Print the visible form of each token, with whether it is a special one. Lines break after line ends."""
    coloured = console.color_system is not None and not console.no_color
    text = Text()
    for number, (shown, special) in enumerate(parts):
        if number and not coloured:
            text.append("│" if console.encoding.startswith("utf") else "|")
        text.append(shown.replace("↵", "↵\n"), SPECIAL if special else COLOURS[number % 2])
    console.print(text, soft_wrap=not console.is_terminal)
