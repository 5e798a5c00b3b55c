"""log.jsonl, read again: its events, and its figures as a table with a row for each step that has any.

A process that was killed may leave half a line at the end, and steps behind its last checkpoint that the next session
does again. Neither is shown: a figure counts once, as the weights know it.
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from ..errors import UserError

Row = dict[str, Any]

FIRST = ["step", "tokens", "seconds", "loss", "val_loss", "perplexity", "val_perplexity", "val_bits_per_byte"]
"""Columns in their order, as far as there are any; others follow in the order in which they appear."""


def read_events(path: Path) -> list[Row]:
    """Every event of a log.jsonl, in order. Raises UserError where there is none, or where it is not one."""
    try:
        *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"there is no log in {path.parent}: {(error.strerror or str(error)).lower()}") from error
    events = [_event(path, number, line) for number, line in enumerate(lines, start=1) if line]
    try:
        return [*events, _event(path, 0, rest)] if rest else events
    except UserError:
        return events  # half a line


def _event(path: Path, number: int, line: str) -> Row:
    try:
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    except json.JSONDecodeError:
        pass
    raise UserError(f"{path}, line {number}: this is no event of a log")


def as_counted(events: Iterable[Row]) -> list[Row]:
    """The events without what a session did after the step from which a later one went on."""
    kept: list[Row] = []
    for event in events:
        if event["event"] == "start" and (step := event.get("step")) is not None:
            kept = [one for one in kept if one["event"] == "start" or one.get("step", 0) <= step]
        kept.append(event)
    return kept


def figures(events: Iterable[Row]) -> list[Row]:
    """A row for each step that was logged or validated, in order: the numbers of both, and the time of the last.

    What a session did after the step from which a later one went on is left out.
    """
    rows: dict[int, Row] = {}
    for event in as_counted(events):
        step = event.get("step")
        if event["event"] in ("step", "validation") and step is not None:
            numbers = {key: value for key, value in event.items() if _is_number(value)}
            rows.setdefault(step, {}).update(numbers)
    return [rows[step] for step in sorted(rows)]


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def columns(rows: Iterable[Row]) -> list[str]:
    """Every column that a row has."""
    seen = dict.fromkeys(key for row in rows for key in row)
    return [*(name for name in FIRST if name in seen), *(name for name in seen if name not in FIRST)]


def write_csv(rows: list[Row], file: IO[str]) -> None:
    """RFC 4180, but with line feeds; what a row lacks, and what was not finite, is empty."""
    writer = csv.DictWriter(file, columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
