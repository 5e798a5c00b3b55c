"""The little language our tales are written in, and the dice that read it.

A passage is plain text: one phrasing per line, a blank line between slots. One phrasing per slot is drawn.
    [big|great]   one of these words is drawn
    {hero}        filled in from the tale's values; {Hero} with a capital, {a_hero} with "a" or "an" in front
    /             alone on a line: this slot opens a new paragraph
    ?             alone on a line: this slot is often left out
    @name         alone on a line: a slot shared by many plots
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Phrasing = tuple[tuple[str, ...], ...]  # pieces in order; each piece is a choice of one or more strings

OPTIONAL = 0.25  # how often a slot that may be left out is told
_CHOICE = re.compile(r"\[([^\]]+)\]")


class Slot(NamedTuple):
    phrasings: tuple[Phrasing, ...]
    opens_paragraph: bool = False
    optional: bool = False


class Script(NamedTuple):
    """A plot as it is written: passages still unread."""

    name: str
    friend: str  # role of the second person: peer, elder or little
    where: str  # groups of places where it may happen
    props: list[dict[str, str]]  # things, deeds and words that belong together; one set is drawn
    lessons: list[str]
    start: str  # up to the moment when the hero must choose
    ending: str
    unkind: str  # the other choice
    asks: list[tuple[str, str]]  # questions with answers
    children_also: str = ""  # groups where it may happen to children only


def prop(**words: str) -> dict[str, str]:
    return words


class Words(dict):
    """Values of a tale; capitals and articles are worked out when first asked for."""

    def __missing__(self, key: str) -> str:
        if key[:2] in ("a_", "A_"):
            noun = self[key[2:]]
            value = ("an " if noun[0] in "aeiou" else "a ") + noun
        elif key[0].isupper():
            value = self[key[0].lower() + key[1:]]
        else:
            raise KeyError(key)
        if key[0].isupper():
            value = value[0].upper() + value[1:]
        self[key] = value
        return value


def pick(rng: random.Random, items: Sequence[Item]) -> Item:
    """One item. Built on random() alone, whose sequence Python promises to keep; choice() may change."""
    return items[int(rng.random() * len(items))]


def parse(passage: str, shared: Mapping[str, Slot] | None = None) -> tuple[Slot, ...]:
    """Read a passage into slots."""
    return tuple(_parse_slot(block.split("\n"), shared or {}) for block in passage.strip().split("\n\n"))


def _parse_slot(lines: list[str], shared: Mapping[str, Slot]) -> Slot:
    marks = [line for line in lines if line in ("/", "?")]
    texts = [line for line in lines if line not in ("/", "?")]
    phrasings: list[Phrasing] = []
    for line in texts:
        phrasings += shared[line[1:]].phrasings if line.startswith("@") else [_parse_phrasing(line)]
    slot = Slot(tuple(phrasings), "/" in marks, "?" in marks)
    if not phrasings or (slot.opens_paragraph and slot.optional):
        raise ValueError(f"a slot needs a phrasing, and a paragraph opener cannot be optional: {lines}")
    return slot


def _parse_phrasing(line: str) -> Phrasing:
    return tuple(tuple(piece.split("|")) for piece in _CHOICE.split(line) if piece)


def draw(rng: random.Random, phrasing: Phrasing) -> str:
    """One reading of a phrasing, its {values} still open."""
    return "".join(piece[0] if len(piece) == 1 else pick(rng, piece) for piece in phrasing)


def tell(rng: random.Random, slots: Sequence[Slot], values: Mapping[str, str]) -> str:
    """Draw one phrasing per slot and fill in the values. The text brings its own joining space or newline."""
    pieces: list[str] = []
    for slot in slots:
        if slot.optional and rng.random() > OPTIONAL:
            continue
        pieces.append("\n" if slot.opens_paragraph else " ")
        pieces.append(draw(rng, pick(rng, slot.phrasings)))
    return "".join(pieces).format_map(values)
