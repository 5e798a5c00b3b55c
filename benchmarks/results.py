"""What every benchmark returns: tables, pictures' points and the facts behind them, and the JSON file of it all.

A benchmark fills a `Report` while it measures, so whatever is there when Ctrl-C arrives is kept. The file, which
`tinytale bench` writes as NAME.json and the pages of `tinytale_mlx.reports` are drawn from:

    {"format": 1, "name": "training", "question": "How fast is ...?", "command": "tinytale bench training --quick",
     "status": "complete",            or "interrupted" (Ctrl-C), or "failed: " and one sentence
     "quick": true, "date": "2026-11-21T14:03:00+00:00", "seconds": 31.2, "cpu_seconds": 58.0,
     "options": {"rounds": 3, ...},   as they were used
     "machine": {"device": "Apple M2", "backend": "gpu", "cores": 8, "memory_bytes": 8589934592, "platform": "...",
                 "python": "3.11.9", "blas": "...", "revision": "e3d4a94", "versions": {"mlx": "0.32.4", ...}},
     "notes": ["how it was measured: warm-up, turns, ..."],
     "tables": [
       {"title": "...", "keys": ["recipe", "program"],            what names a row; unique within the table
        "columns": [{"name": "speed", "unit": "tokens/s", "better": "higher"}],    or "lower", or null
        "rows": [{"key": ["tiny-tale", "tinytale"], "cells": {"speed": CELL}, "missing": null},
                 {"key": ["tiny-tale", "PyTorch"], "cells": {}, "missing": "No module named 'torch'"}],
        "notes": ["..."]}],
     "plots": [
       {"title": "...", "kind": "line",   or "bar": x are names; or "diagonal": x and y alike, with the line y = x
        "x": {"name": "parameters", "unit": "", "better": null}, "y": {...}, "logarithmic": true,    of x
        "lines": [{"name": "tinytale", "points": [{"x": 1.0, "y": 2.0, "low": 1.9, "high": 2.2}, ...]}]}]}

CELL is null, a text, a number, or what rounds gave: {"median": 2.0, "min": 1.9, "max": 2.2, "values": [1.9, ...]}.
Column units: "bytes" and "s" are for the reader to scale; "share" is of 1; "x" is how many times; the others as they
are. `low` and `high` are of the rounds, and null where there were none. A row that is `missing` says why in its place.

`tinytale bench all` writes results.json beside them: {"format": 1, "reports": [...]}, in the order of running.
"""

import json
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tinytale_mlx.errors import UserError

FORMAT = 1
COMPLETE, INTERRUPTED = "complete", "interrupted"


@dataclass
class Measured:
    """The same thing measured in several rounds."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any] | None:
        values = [value for value in self.values if math.isfinite(value)]
        if not values:
            return None
        return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


Cell = str | int | float | Measured | None


@dataclass(frozen=True)
class Column:
    name: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None


@dataclass
class Row:
    """One line of a table. `missing` says in a sentence why it has no figures."""

    key: list[str | int | float]
    cells: dict[str, Cell] = field(default_factory=dict)
    missing: str | None = None

    def set(self, **cells: Cell) -> None:
        """Figures that are known for good, by column; a space in a column's name is written as _."""
        self.cells |= {name.replace("_", " "): cell for name, cell in cells.items()}

    def add(self, **figures: float) -> None:
        """A round's figures, by column; likewise."""
        for name, figure in figures.items():
            self.measured(name.replace("_", " ")).values.append(figure)

    def measured(self, column: str) -> Measured:
        """What the rounds gave so far: the object that later rounds add to."""
        cell = self.cells.setdefault(column, Measured())
        assert isinstance(cell, Measured)
        return cell


@dataclass
class Table:
    title: str
    keys: list[str]
    columns: list[Column]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, *key: str | int | float) -> Row:
        """A new row, at the end."""
        assert len(key) == len(self.keys)
        self.rows.append(Row(list(key)))
        return self.rows[-1]


@dataclass
class Line:
    name: str
    points: list[tuple[str | float, float | Measured]] = field(default_factory=list)

    def add(self, x: str | float, y: float | Measured) -> None:
        self.points.append((x, y))


@dataclass
class Plot:
    title: str
    x: Column
    y: Column
    kind: Literal["line", "bar", "diagonal"] = "line"
    logarithmic: bool = False
    lines: list[Line] = field(default_factory=list)

    def line(self, name: str) -> Line:
        """A new line, or set of bars."""
        self.lines.append(Line(name))
        return self.lines[-1]


@dataclass
class Report:
    name: str
    question: str
    command: str = ""
    quick: bool = False
    status: str = COMPLETE
    date: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of this process and those that it started and waited for."""
    options: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)

    def table(self, title: str, keys: list[str], columns: list[Column], notes: list[str] | None = None) -> Table:
        """A new table, to be filled row by row."""
        self.tables.append(Table(title, keys, columns, notes=list(notes or [])))
        return self.tables[-1]

    def plot(
        self,
        title: str,
        x: Column,
        y: Column,
        kind: Literal["line", "bar", "diagonal"] = "line",
        logarithmic: bool = False,
    ) -> Plot:
        """A new picture, to be filled point by point."""
        self.plots.append(Plot(title, x, y, kind, logarithmic))
        return self.plots[-1]

    def to_json(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name not in ("tables", "plots")}
        tables, plots = map(_table_json, self.tables), map(_plot_json, self.plots)
        return {"format": FORMAT, **own, "tables": list(tables), "plots": list(plots)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Report":
        """Raises UserError for what is no report of this format."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"this is no result of a benchmark in format {FORMAT}")
        try:
            rest = {name: value for name, value in content.items() if name not in ("format", "tables", "plots")}
            return cls(**rest, tables=[*map(_table, content["tables"])], plots=[*map(_plot, content["plots"])])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"this result of a benchmark is incomplete: {error}") from error


def read(path: Path) -> list[Report]:
    """The reports of a NAME.json, or of a results.json. Raises UserError, naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        several = content.get("reports", [content]) if isinstance(content, dict) else None
        if not isinstance(several, list):
            raise UserError("this is no result of a benchmark")
        return [Report.from_json(one) for one in several]
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # UserError is one, and so are broken JSON and bytes that are not UTF-8
        said = str(error) if isinstance(error, UserError) else "this is not JSON"
        raise UserError(f"{path}: {said}") from error


def all_to_json(reports: list[Report]) -> dict[str, Any]:
    return {"format": FORMAT, "reports": [report.to_json() for report in reports]}


def _cell_json(cell: Cell) -> Any:
    if isinstance(cell, Measured):
        return cell.to_json()
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _table_json(table: Table) -> dict[str, Any]:
    rows = [
        {"key": row.key, "cells": {n: _cell_json(c) for n, c in row.cells.items()}, "missing": row.missing}
        for row in table.rows
    ]
    columns = [vars(column) for column in table.columns]
    return {"title": table.title, "keys": table.keys, "columns": columns, "rows": rows, "notes": table.notes}


def _plot_json(plot: Plot) -> dict[str, Any]:
    lines = [{"name": line.name, "points": [p for x, y in line.points if (p := _point(x, y))]} for line in plot.lines]
    return {**vars(plot), "x": vars(plot.x), "y": vars(plot.y), "lines": lines}


def _point(x: str | float, y: float | Measured) -> dict[str, Any] | None:
    """None where nothing was measured."""
    found = _cell_json(y)
    if found is None:
        return None
    if isinstance(y, Measured):
        return {"x": x, "y": found["median"], "low": found["min"], "high": found["max"]}
    return {"x": x, "y": found, "low": None, "high": None}


def _table(content: dict[str, Any]) -> Table:
    rows = [
        Row(row["key"], {n: Measured(c["values"]) if isinstance(c, dict) else c for n, c in row["cells"].items()},
            row["missing"])
        for row in content["rows"]
    ]  # fmt: skip
    columns = [Column(**one) for one in content["columns"]]
    return Table(content["title"], content["keys"], columns, rows, content["notes"])


def _plot(content: dict[str, Any]) -> Plot:
    lines = [Line(one["name"], [(p["x"], _y(p)) for p in one["points"]]) for one in content["lines"]]
    axes = {name: Column(**content[name]) for name in ("x", "y")}
    return Plot(**{**content, **axes, "lines": lines})


def _y(point: dict[str, Any]) -> float | Measured:
    return point["y"] if point["low"] is None else Measured([point["low"], point["y"], point["high"]])
