"""`tinytale tokenizer encode` and `decode`: text to ids and back."""

import io
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tinytale_mlx import run
from tinytale_mlx.errors import UserError

from .options import Json, Runs, print_json, printable
from .pieces import show

Special = Annotated[
    bool, typer.Option("--special/--no-special", help="Whether special tokens, such as <|eos|>, count as such.")
]
IDS, ID = re.compile(r"[0-9\s,\[\]]+"), re.compile(r"[0-9]{1,18}")


def encode(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOKENIZER] TEXT", help="The text, in quotes; '-' or nothing reads standard input."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Encode this file instead of TEXT.")] = None,
    pieces: Annotated[bool, typer.Option("--pieces", help="Show how the text is cut, not the ids.")] = False,
    special: Special = True,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Text to token ids, on one line.

    Examples:

        tinytale tokenizer encode "Once upon a time"

        tinytale tokenizer encode my-run "Once upon a time" --pieces

        tinytale tokenizer encode tokenizers/book-bpe-4096 --file my-book.txt
    """
    from tinytale_mlx import stages
    from tinytale_mlx.tokenizers.inspection import pieces as cut

    name, text = _name_and_text(words or [], file)
    tokenizer, _ = stages.find_tokenizer(name, runs)
    if json or pieces:
        found = cut(tokenizer, text, special=special)
        if json:
            print_json({"ids": [one.id for one in found], "tokens": [one.text for one in found]})
        else:
            show(Console(highlight=False), found)
    else:
        print(*tokenizer.encode(text, special=special))


def _name_and_text(words: list[str], file: Path | None) -> tuple[str | None, str]:
    """What was meant by the words of `encode`: the last one is the text, unless that comes from a file."""
    if len(words) > (2 if file is None else 1):
        raise UserError("too many words: `encode [TOKENIZER] TEXT` takes the text in quotes, and none beside --file")
    if file is not None:
        return (words[0] if words else None), _read(file)
    *name, text = words or ["-"]
    return (name[0] if name else None), (_standard_input() if text == "-" else text)


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error


def _standard_input() -> str:
    if sys.stdin.isatty():
        print("reading from the keyboard; Ctrl-D on an empty line ends", file=sys.stderr)
    if isinstance(sys.stdin, io.TextIOWrapper):  # line ends as they are, and whatever the locale says
        sys.stdin.reconfigure(encoding="utf-8", errors="strict", newline="")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise UserError("the standard input is not UTF-8 text") from None


def decode(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOKENIZER] IDS", help="The ids; '-' or none reads them from standard input."),
    ] = None,
    pieces: Annotated[bool, typer.Option("--pieces", help="Show the tokens one by one.")] = False,
    special: Special = True,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Token ids to text. Spaces, commas or brackets may stand between the ids.

    Examples:

        tinytale tokenizer decode 412 88 1031

        tinytale tokenizer decode my-run "[412, 88, 1031]" --pieces

        tinytale tokenizer encode "Once upon a time" | tinytale tokenizer decode
    """
    from tinytale_mlx import stages
    from tinytale_mlx.tokenizers.inspection import piece

    name, ids = _name_and_ids(words or [])
    tokenizer, _ = stages.find_tokenizer(name, runs)
    text = tokenizer.decode(ids, skip_special=not special)
    found = [piece(tokenizer, token_id) for token_id in ids] if pieces or json else []
    if json:
        print_json({"text": text, "tokens": [one.text for one in found]})
    elif pieces:
        show(Console(highlight=False), found)
    elif sys.stdout.isatty():
        print(printable(text))
    else:
        print(text, end="")  # what comes out of a pipe is the text, to the last byte


def _name_and_ids(words: list[str]) -> tuple[str | None, list[int]]:
    """What was meant by the words of `decode`: a tokenizer is the first one if it holds anything but ids."""
    named = bool(words) and not IDS.fullmatch(words[0]) and words[0] != "-"
    name, rest = (words[0], words[1:]) if named else (None, words)
    said = " ".join(rest) if rest and rest != ["-"] else _standard_input()
    numbers = re.sub(r"[,\[\]]", " ", said).split()
    wrong = next((word for word in numbers if not ID.fullmatch(word)), None)
    if wrong is not None:
        raise UserError(f"{wrong[:40]!r} is not a token id; ids are whole numbers from 0")
    return name, list(map(int, numbers))
