"""`tinytale chat` at a real, though pretended, terminal."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pseudo_terminal import Terminal

PROMPT = r"\nyou> "


@pytest.fixture
def chat(trained: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_(*arguments: str, **environment: str) -> Terminal:
        opened.append(Terminal("chat", *arguments, **environment))
        return opened[-1]

    yield open_
    for screen in opened:
        screen.close()


@pytest.mark.slow
def test_a_session(chat: Callable[..., Terminal]) -> None:
    screen = chat("-t", "1", "-m", "100000")
    greeting = screen.read(PROMPT)
    assert greeting.startswith("runs/nano/model: Ask it for a tale. /reset forgets")
    screen.type("Tell me a tale.\n")
    screen.read(r"Tell me a tale\.\n[^\n]{5}")
    end = screen.interrupt(PROMPT)  # stops the answer, which might go on for minutes
    assert " ..." in end
    assert re.search(r"tokens/s, context \d+ of 32\]", end)
    assert "(once more, Ctrl-D or /quit ends)" in screen.interrupt(PROMPT)
    screen.type("/reset\n")
    assert "(a new conversation)" in screen.read(PROMPT)
    screen.type("\x04")
    assert screen.code() == 0


@pytest.mark.slow
def test_the_second_ctrl_c_at_the_prompt_leaves(chat: Callable[..., Terminal]) -> None:
    screen = chat()
    screen.read(PROMPT)
    screen.interrupt(PROMPT)
    assert screen.leave() == 0


@pytest.mark.slow
def test_colours_and_editing(chat: Callable[..., Terminal]) -> None:
    """Tokens are coloured, and the arrow key brings back what was typed."""
    screen = chat("-m", "4", "-t", "0", "--show-probabilities", TERM="xterm-256color", NO_COLOR="")
    screen.read("you> ")
    screen.type("Tell me a tale.\n")
    first = screen.read(r"tokens/s.*\x1b\[0m\n")
    assert "\x1b[31m" in first  # a model of 24 steps is sure of nothing
    screen.read("you> ")
    pytest.importorskip("readline", reason="this Python has no readline")
    screen.type("\x1b[A\n")
    assert "Tell me a tale." in screen.read(r"tokens/s.*\x1b\[0m\n")
    screen.type("/quit\n")
    assert screen.code() == 0


@pytest.mark.slow
def test_a_terminal_without_utf_8(chat: Callable[..., Terminal]) -> None:
    """What it can't show becomes a question mark; what it types in its own way is no reason to stop."""
    screen = chat("-m", "30", "-t", "2", PYTHONIOENCODING="ascii:surrogateescape", LC_ALL="C")
    screen.read(PROMPT)
    screen.type("Caf\u00e9?\n")
    screen.read(r"tokens/s, context \d+ of 32\]\n")
    screen.read(PROMPT)
    screen.type("/quit\n")
    assert screen.code() == 0
