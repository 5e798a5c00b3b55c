"""Results of benchmarks as a page: what came out in a minute's reading, then every table, picture and command.

It takes the JSON that `tinytale bench` writes; benchmarks/results.py says what is in it. Two machines' results are set
side by side, with what the second has for each unit of the first.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from .page import Block, Facts, Heading, Page, Pictures, Table, Text, Verbatim
from .plots import Bars, Picture, Series, bar_chart, line_chart
from .wording import duration, number, with_unit

Json = dict[str, Any]
NONE = "-"


def bench_page(reports: Sequence[Json], title: str = "tinytale: measured comparisons") -> Page:
    """A page of the `Report.to_json()` of one benchmark or of several."""
    page = Page(title)
    if not reports:
        return Page(title, [Text("Nothing has been measured.")])
    page.add(*_provenance(reports), *_in_a_minute(reports))
    for report in reports:
        page.add(*_section(report))
    page.add(Heading("The machine"), _machines([_machine(reports)], ["machine"]))
    return page


def compare_page(first: Sequence[Json], second: Sequence[Json], names: tuple[str, str]) -> Page:
    """Two results side by side; what only one of them has is left out, and said."""
    page = Page(f"tinytale: {names[0]} and {names[1]}")
    machines = [_machine(reports) for reports in (first, second)]
    page.add(*_warnings(first, second, machines), _machines(machines, names))
    others = {report["name"]: report for report in second}
    for one in first:
        if other := others.pop(one["name"], None):
            page.add(Heading(one["question"]), *_status(one), *_status(other))
            page.add(*_compared(one, other, names), *map(_command, (one, other)))
        else:
            page.add(Heading(one["question"]), Text(f"Only {names[0]} has this."))
    page.add(*(Text(f"Only {names[1]} has: {report['question']}") for report in others.values()))
    return page


# ---------------------------------------------------------------------- the summary
def _provenance(reports: Sequence[Json]) -> Iterator[Block]:
    machine = _machine(reports)
    done = sum(report["status"] == "complete" for report in reports)
    yield Facts(
        [
            ("machine", f"{machine.get('device', 'unknown')}, {machine.get('backend', '')}"),
            ("measured", f"{done} of {len(reports)}" if len(reports) > 1 else reports[0]["status"]),
            ("on", max(report["date"] for report in reports)[:10]),
            ("in", duration(sum(report["seconds"] for report in reports))),
            ("revision", machine.get("revision") or "unknown"),
        ]
    )
    if any(report["quick"] for report in reports):
        yield Text("**Measured with --quick: smaller and fewer than the figures of a full run.**")


def _in_a_minute(reports: Sequence[Json]) -> Iterator[Block]:
    rows = [[report["question"], _answer(report) or report["status"]] for report in reports]
    if len(rows) > 1:
        yield Heading("In a minute")
        yield Table(["question", "answer"], rows, left=2)


def _answer(report: Json) -> str:
    """Of the first table with figures that can be better or worse: how many times, where a column says so of rows
    beside others; else the best row, and the first one to compare it with."""
    for table in report["tables"]:
        rated = [column for column in table["columns"] if column["better"]]
        for column in sorted(rated, key=lambda column: column["unit"] != "x"):
            known = [(value, row) for row in table["rows"] if (value := _middle(row, column)) is not None]
            if column["unit"] == "x":
                shown = [pair for pair in known if pair[0] != 1][:4]
            else:
                known.sort(key=lambda pair: pair[0], reverse=column["better"] == "higher")
                shown = known[:1] if len(known) < 2 else [known[0], known[-1]]
            if shown:
                figures = (f"{number(value, column['unit'])} ({_key(row)})" for value, row in shown)
                return f"{with_unit(column['name'], column['unit'])}: {', '.join(figures)}"
    return ""


# ---------------------------------------------------------------------- one benchmark
def _section(report: Json) -> Iterator[Block]:
    yield Heading(report["question"])
    yield from _status(report)
    for table in report["tables"]:
        yield from _table(table)
    ratios = (_ratios(table, f"{report['name']}-ratios-{i}") for i, table in enumerate(report["tables"]))
    plots = (_plot(plot, f"{report['name']}-{i}") for i, plot in enumerate(report["plots"]))
    if drawn := [one for one in (*plots, *ratios) if one]:
        yield Pictures(drawn)
    yield from map(Text, report["notes"])
    yield _command(report)


def _status(report: Json) -> list[Block]:
    return [] if report["status"] == "complete" else [Text(f"**{report['name']}: {report['status']}**")]


def _command(report: Json) -> Verbatim:
    seconds = f"{report['seconds']:,.0f} s, {report['cpu_seconds']:,.0f} CPU seconds"
    return Verbatim(report["command"], f"Measured with ({report['date']}, {seconds}):")


def _table(table: Json) -> Iterator[Block]:
    reasons = any(row["missing"] for row in table["rows"])
    head = [*table["keys"], *(with_unit(column["name"], column["unit"]) for column in table["columns"])]
    rows = [
        [
            *map(str, row["key"]),
            *(_cell(row["cells"].get(column["name"]), column["unit"]) for column in table["columns"]),
            *([row["missing"] or ""] if reasons else []),
        ]
        for row in table["rows"]
    ]
    yield Text(f"**{table['title']}**")
    yield Table([*head, *([""] if reasons else [])], rows, left=len(table["keys"]))
    yield from map(Text, table["notes"])


def _cell(cell: Any, unit: str) -> str:
    """`1,239 (1,198 to 1,253)` for what was measured in rounds."""
    if cell is None or isinstance(cell, str):
        return cell or NONE
    if not isinstance(cell, dict):
        return number(cell, unit)
    middle = number(cell["median"], unit)
    if len(cell["values"]) == 1:
        return middle
    ends = (number(cell[end], unit).removesuffix(" x") for end in ("min", "max"))
    return f"{middle} ({' to '.join(ends)})"


def _middle(row: Json, column: Json) -> float | None:
    """The figure of a cell that has one."""
    cell = row["cells"].get(column["name"])
    cell = cell["median"] if isinstance(cell, dict) else cell
    return None if isinstance(cell, str) else cell


def _key(row: Json) -> str:
    return " / ".join(map(str, row["key"]))


# ---------------------------------------------------------------------- pictures
def _ratios(table: Json, name: str) -> Picture | None:
    """Bars of every column that says how many times; None where there are not two rows to compare."""
    columns = [column for column in table["columns"] if column["unit"] == "x"]
    rows = [row for row in table["rows"] if any(_middle(row, column) is not None for column in columns)]
    if len(rows) < 2:
        return None
    groups = []
    for column in columns:
        cells = [row["cells"].get(column["name"]) for row in rows]
        spread = [(cell["min"], cell["max"]) if isinstance(cell, dict) else None for cell in cells]
        groups.append(Bars(column["name"], [_middle(row, column) for row in rows], spread))
    label = "times" if len(columns) > 1 else f"{columns[0]['name']}, times"
    return bar_chart(name, table["title"], label, [_key(row) for row in rows], groups, reference=1)


def _plot(plot: Json, name: str) -> Picture | None:
    x, y = plot["x"], plot["y"]
    x_label, y_label = (_axis_label(axis) for axis in (x, y))
    if plot["kind"] == "bar":
        places = list(dict.fromkeys(str(point["x"]) for line in plot["lines"] for point in line["points"]))
        groups = []
        for line in plot["lines"]:
            points = {str(point["x"]): point for point in line["points"]}
            found = [points.get(place) for place in places]
            values = [_scaled(one["y"], y) if one else None for one in found]
            groups.append(Bars(line["name"], values, [_spread(one, y) if one else None for one in found]))
        return bar_chart(name, plot["title"], y_label, places, groups, reference=1 if y["unit"] == "x" else None)
    diagonal = plot["kind"] == "diagonal"
    series = [
        Series(
            line["name"],
            [_scaled(point["x"], x) for point in line["points"]],
            [_scaled(point["y"], y) for point in line["points"]],
            "scattered" if diagonal else "points",
            [_spread(point, y) for point in line["points"]],
        )
        for line in plot["lines"]
    ]
    scale = "both log" if diagonal else "log x" if plot["logarithmic"] else "close"
    return line_chart(name, plot["title"], x_label, y_label, series, scale=scale, diagonal=diagonal)


def _axis_label(axis: Json) -> str:
    return f"{axis['name']}, %" if axis["unit"] == "share" else with_unit(axis["name"], axis["unit"])


def _scaled(value: float, axis: Json) -> float:
    return value * {"bytes": 1e-6, "share": 100}.get(axis["unit"], 1)


def _spread(point: Json, axis: Json) -> tuple[float, float] | None:
    return None if point["low"] is None else (_scaled(point["low"], axis), _scaled(point["high"], axis))


# ---------------------------------------------------------------------- machines, and two of them
def _machine(reports: Sequence[Json]) -> Json:
    """Of the first that says so: a benchmark that died at once does not."""
    return next((report["machine"] for report in reports if report["machine"]), {})


def _machines(machines: Sequence[Json], names: Sequence[str]) -> Table:
    """What each of them is, a column for each."""
    columns = []
    for machine in machines:
        versions = {name: version for name, version in machine.get("versions", {}).items() if version}
        memory = {"memory": number(machine["memory_bytes"], "bytes") + " MB"} if "memory_bytes" in machine else {}
        rest = {name: machine[name] for name in machine if name not in ("versions", "memory_bytes")}
        columns.append({**rest, **memory, **versions})
    facts = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(str(column.get(name) or NONE) for column in columns)] for name in facts]
    return Table(["", *names], rows, left=1 + len(names))


def _warnings(first: Sequence[Json], second: Sequence[Json], machines: Sequence[Json]) -> Iterator[Block]:
    what = ("device", "backend", "cores", "memory_bytes")
    if [machines[0].get(one) for one in what] != [machines[1].get(one) for one in what]:
        yield Text("**These are different machines: compare the ratios within each, not the speeds.**")
    options = [{one["name"]: (one["quick"], one["options"]) for one in side} for side in (first, second)]
    if unlike := [name for name in options[0] if name in options[1] and options[0][name] != options[1][name]]:
        yield Text(f"**Not measured with the same options: {', '.join(unlike)}.**")


def _compared(one: Json, other: Json, names: tuple[str, str]) -> Iterator[Block]:
    tables = {table["title"]: table for table in other["tables"]}
    for table in one["tables"]:
        if table["title"] not in tables:
            continue
        rows = {tuple(row["key"]): row for row in tables[table["title"]]["rows"]}
        both = [(row, rows[key]) for row in table["rows"] if (key := tuple(row["key"])) in rows]
        lines = [line for pair in both for line in _compared_lines(*pair, table["columns"])]
        yield Text(f"**{table['title']}**")
        yield Table([" / ".join(table["keys"]), "figure", *names, "times"], lines, left=2)


def _compared_lines(one: Json, other: Json, columns: Sequence[Json]) -> Iterator[list[str]]:
    """A line for each figure: two machines' beside each other for all of a row would be too wide for any screen."""
    key = _key(one)
    for column in columns:
        name, unit = column["name"], column["unit"]
        before, after = _middle(one, column), _middle(other, column)
        cells = [
            _cell(row["cells"].get(name) if value is None else value, unit)
            for row, value in ((one, before), (other, after))
        ]
        times = number(after / before, "x") if before and after is not None else NONE
        yield [key, with_unit(name, unit), *cells, times]
        key = ""
