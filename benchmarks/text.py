"""A report on the terminal: its tables, and what one must know to read them."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from .results import COMPLETE, Cell, Column, Measured, Report, Table


def show(report: Report, console: Console | None = None) -> None:
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(f"[bold]{escape(report.question)}[/bold]", soft_wrap=True)
    if report.status != COMPLETE:
        console.print(f"[bold red]{escape(report.status)}[/bold red]", soft_wrap=True)
    for table in report.tables:
        console.print()
        console.print(_grid(table))
        missing = [f"{', '.join(map(str, row.key))}: {row.missing}" for row in table.rows if row.missing]
        for note in [*missing, *table.notes]:
            console.print(f"[dim]{escape(note)}[/dim]", soft_wrap=True)
    console.print()
    for note in [*report.notes, *_machine(report)]:
        console.print(_emphasised(note), soft_wrap=True)


def _machine(report: Report) -> list[str]:
    facts = report.machine
    if not facts:
        return []
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    return [
        f"{facts['device']}, {facts['backend']}, {facts['cores']} cores, {facts['memory_bytes'] / 1e9:.0f} GB, "
        f"{facts['platform']}, BLAS {facts['blas']}, revision {facts['revision'] or 'unknown'}",
        f"Python {facts['python']}, {versions}",
        f"{report.command} ({report.date}, {report.seconds:.0f} s, {report.cpu_seconds:.0f} CPU seconds)",
    ]


def _emphasised(note: str) -> str:
    """**Bold** as in Markdown; the rest is dim."""
    parts = note.split("**")
    return "".join(
        f"[{'bold red' if number % 2 else 'dim'}]{escape(part)}[/]" for number, part in enumerate(parts) if part
    )


def _grid(table: Table) -> Grid:
    grid = Grid(title=table.title, title_justify="left", box=None, header_style="bold")
    for key in table.keys:
        grid.add_column(key)
    for column in table.columns:
        grid.add_column(heading(column), justify="right")
    for row in table.rows:
        cells = [cell_text(row.cells.get(column.name), column.unit) for column in table.columns]
        grid.add_row(*map(escape, [*map(str, row.key), *cells]))
    return grid


def heading(column: Column) -> str:
    unit = {"bytes": "MB", "share": ""}.get(column.unit, column.unit)
    return f"{column.name}, {unit}" if unit else column.name


def cell_text(cell: Cell, unit: str) -> str:
    """`1,239 (1,198-1,253)` for what was measured in rounds; - where there is nothing."""
    if isinstance(cell, Measured):
        if not cell.values:
            return "-"
        middle = number_text(cell.median, unit)
        if len(cell.values) == 1:
            return middle
        return f"{middle} ({number_text(min(cell.values), unit)}-{number_text(max(cell.values), unit)})"
    if cell is None:
        return "-"
    return cell if isinstance(cell, str) else number_text(cell, unit)


def number_text(value: float, unit: str) -> str:
    """Three or four digits that count; megabytes of 10^6 bytes, per cent of a share."""
    if unit == "share":
        return f"{value:.1%}"
    value = value / 1e6 if unit == "bytes" else value
    if isinstance(value, int) or abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 0.01 or value == 0:
        text = f"{value:,.{3 if abs(value) < 10 else 1}f}"
    else:
        text = f"{value:.1e}"
    return text
