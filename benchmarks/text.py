"""A page on the terminal: all but its pictures."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from tinytale_mlx.reports.page import Block, Facts, Heading, Page, Pictures, Table, Text, Verbatim

PIPED = 200
"""Columns where nobody looks at them."""


def show(page: Page, console: Console | None = None) -> None:
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else PIPED)
    for block in page.blocks:
        if not isinstance(block, Pictures):
            _show(block, console)


def _show(block: Block, console: Console) -> None:
    match block:
        case Heading(text):
            console.print(f"\n[bold]{escape(text)}[/bold]", soft_wrap=True)
        case Text(text):
            parts = enumerate(map(escape, text.split("**")))
            console.print("".join(f"[bold]{part}[/bold]" if n % 2 else part for n, part in parts), soft_wrap=True)
        case Facts(facts):
            console.print(", ".join(f"{escape(name)}: {escape(value)}" for name, value in facts), soft_wrap=True)
        case Table(head, rows, left):
            grid = Grid(box=None, header_style="bold")
            for number, name in enumerate(head):
                grid.add_column(escape(name), justify="left" if number < left else "right")
            for row in rows:
                grid.add_row(*map(escape, row))
            console.print(grid)
        case Verbatim(text, title):
            console.print(f"[dim]{escape(title or '')}[/dim] {escape(text)}", soft_wrap=True)
