"""Bytes as text: UTF-8 or a sentence that says where it is not, and text files as documents.

Documents of a text file are divided by lines that hold nothing but `<|endoftext|>`, as OpenAI's published
corpora are. Without such a line the file is one document.
"""

import io
from collections.abc import Iterator

from ..errors import UserError

SEPARATOR = b"<|endoftext|>"
WHOLE = 1 << 24  # bytes of a document that may be held in memory
PART = 1 << 18  # bytes, at least, of the documents into which a longer one is cut


def check_text(file: io.BufferedReader, label: str, supported: str) -> None:
    """Tell text from something else by how it begins. Raises UserError; the file stays where it is."""
    head = file.peek()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{label} is UTF-16; convert it to UTF-8")
    broken = head.decode("utf-8", "replace").count("\ufffd")
    if b"\0" in head or broken > len(head) * 0.3:
        raise UserError(f"{label} looks like a binary file; supported are {supported}")


def decode(raw: bytes, label: str, line: int, replace: bool) -> str:
    """`raw`, which begins on this line of the file, as text with `\\n` line ends and no byte order mark.

    Raises UserError for invalid UTF-8, unless `replace`, and for a NUL byte.
    """
    try:
        text = raw.decode("utf-8", "replace" if replace else "strict")
    except UnicodeDecodeError as error:
        raise invalid(error, label, line) from error
    check_nul(text, label, line)
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n") if "\r" in text else text


def invalid(error: UnicodeDecodeError, label: str, line: int) -> UserError:
    """What to say of the bytes that could not be decoded and began on this line."""
    line += error.object.count(b"\n", 0, error.start)
    return UserError(
        f"{label}, line {line}: byte 0x{error.object[error.start]:02x} is not valid UTF-8; "
        "with data.invalid_utf8: replace such bytes become U+FFFD"
    )


def check_nul(text: str, label: str, line: int) -> None:
    if "\0" in text:
        raise UserError(f"{label} looks like a binary file: there is a NUL byte on or after line {line}")


def text_rows(file: io.BufferedReader, label: str, replace: bool) -> Iterator[tuple[str, str]]:
    """(text, where) of the documents between separator lines, without the blank lines around them; or else the file.

    A document of more than `WHOLE` bytes could be larger than the memory: it comes in parts, cut at line ends.
    """
    held = bytearray()
    begin, separated, limit = 1, False, WHOLE

    def documents(part: bytes) -> Iterator[tuple[str, str]]:
        text = decode(part, label, begin, replace)
        if text.strip():
            yield text.strip("\n") if separated else text, f"{label}, line {begin}"

    for number, line in enumerate(file, 1):
        if line.strip() == SEPARATOR:
            separated = True
            yield from documents(bytes(held))
            held.clear()
            begin, limit = number + 1, WHOLE
            continue
        held += line
        if len(held) > limit:
            limit = PART
            while len(held) > PART:
                part = bytes(held[: held.find(b"\n", PART - 1) + 1 or None])
                yield from documents(part)
                begin += part.count(b"\n")
                del held[: len(part)]
    yield from documents(bytes(held))
