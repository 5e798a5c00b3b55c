"""Pictures in one house style: lines, bands and bars as PNG, made to be read on a phone as well as on a desk.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), which people with any kind of colour vision tell
apart; lines differ in stroke or marker besides. matplotlib's figures are used directly, without pyplot: nothing global
is touched, and no window system is looked for.
"""

import io
import logging
import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from .wording import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
STROKES = ["-", "--", "-.", ":"]
INK, FAINT = "#333333", "#dddddd"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that all machines draw the same
    "font.size": 11,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # a name with dollar signs is a name
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}
WIDTH, HEIGHT, DPI = 4.8, 3.2, 200
"""Inches, and pixels to an inch: as wide as a phone, and sharp there. A letter is then about 11 points high."""
MOST = 300
"""Points of a line; of more, groups are drawn as their mean in a band from the least to the largest."""
MARKED = 40
"""About so many of them have a marker."""

Kind = Literal["line", "points", "scattered"]
Scale = Literal["from zero", "close", "log", "log x", "both log"]


@dataclass(frozen=True)
class Series:
    """A line of a chart. A value that is None or not finite is left out. `spread`: from and to, for each value."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    kind: Kind = "line"
    spread: Sequence[tuple[float, float] | None] = ()

    def known(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if y is not None and math.isfinite(y)]


@dataclass(frozen=True)
class Level:
    """A horizontal mark: a line, or a band where it has two ends."""

    label: str
    low: float
    high: float | None = None


@dataclass(frozen=True)
class Bars:
    """Bars of one colour, one for each label of the chart; None leaves a gap. `spread`: from and to, for each."""

    label: str
    values: Sequence[float | None]
    spread: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True)
class Picture:
    """A finished picture: `name` is that of its file without .png, `alt` says in words what it shows."""

    name: str
    png: bytes
    alt: str


def line_chart(
    name: str,
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    levels: Sequence[Level] = (),
    marks: Sequence[float] = (),
    scale: Scale = "close",
    diagonal: bool = False,
) -> Picture | None:
    """Lines over an x axis; None where there is nothing to draw.

    `marks` are places on the x axis where a process went on with what another had begun. With "log" the y axis is
    logarithmic where values span more than a factor of three, with "log x" the x axis, with "both log" both. `diagonal`
    draws the line y = x, on which a forecast lies that comes true.
    """
    drawn = [one for one in series if one.known()]
    if not drawn:
        return None
    with _figure(title) as (figure, axes):
        for level in levels:
            _draw_level(axes, level)
        for number, one in enumerate(drawn):
            _draw_series(axes, one, number)
        for number, place in enumerate(marks):
            axes.axvline(place, color=INK, linewidth=1, linestyle=":", label=None if number else "resumed")
        if diagonal:
            every = [value for one in drawn for point in one.known() for value in point]
            axes.plot((min(every), max(every)), (min(every), max(every)), color=INK, linewidth=1, linestyle="--")
        _scale(axes, drawn, scale)
        axes.xaxis.set_major_formatter(quantity)
        axes.set(xlabel=x_label, ylabel=y_label)
        if len(axes.get_legend_handles_labels()[1]) > 1:
            _legend(figure, axes)
        return Picture(name, _png(figure), _in_words(title, x_label, y_label, drawn))


def bar_chart(
    name: str, title: str, x_label: str, labels: Sequence[str], groups: Sequence[Bars], reference: float | None = None
) -> Picture | None:
    """Horizontal bars with their value at the end, which leaves names room on a phone; None where there are none.

    `reference` draws a line to compare with, such as 1 for ratios.
    """
    groups = [group for group in groups if any(value is not None for value in group.values)]
    if not groups:
        return None
    thick = 0.8 / len(groups)
    with _figure(title, height=1.1 + 0.34 * len(labels) * max(1.0, 0.6 * len(groups))) as (figure, axes):
        for number, group in enumerate(groups):
            _draw_bars(
                axes, group, (number - (len(groups) - 1) / 2) * thick, thick * 0.9, COLOURS[number % len(COLOURS)]
            )
        if reference is not None:
            axes.axvline(reference, color=INK, linewidth=1.2, linestyle="--")
        axes.set_yticks(range(len(labels)), [_shortened(label) for label in labels], fontsize=10)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.2)  # where the values are written
        axes.set_xlim(left=0)
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_formatter(quantity)
        if len(groups) > 1:
            _legend(figure, axes)
        return Picture(name, _png(figure), f"{title}, {x_label}. {_bars_in_words(labels, groups)}")


# ---------------------------------------------------------------------- parts of a chart
@contextmanager
def _figure(title: str, height: float = HEIGHT) -> "Iterator[tuple[Figure, Axes]]":
    """An empty chart. Raises UserError where matplotlib finds no place for its cache at all."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where its cache folder is not writable, it takes another
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except (ImportError, OSError) as error:
        raise UserError(f"pictures cannot be drawn: {' '.join(str(error).split())}") from error
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
        axes = figure.subplots()
        figure.suptitle(textwrap.fill(title, 48), x=0.02, horizontalalignment="left")
        yield figure, axes


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw_level(axes: "Axes", level: Level) -> None:
    """A line is drawn over the others: where a forecast is right, it is still to be seen."""
    if level.high is None:
        axes.axhline(level.low, color=INK, linewidth=1.2, linestyle=(0, (4, 4)), zorder=3, label=level.label)
    else:
        axes.axhspan(level.low, level.high, color=COLOURS[-2], alpha=0.25, linewidth=0, label=level.label)


def _draw_series(axes: "Axes", series: Series, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    points = series.known()
    size = 1 if series.kind == "scattered" else math.ceil(len(points) / MOST)
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    x = [group[-1][0] for group in groups]
    y = [math.fsum(value for _, value in group) / len(group) for group in groups]
    if len(groups) < len(points):
        axes.fill_between(
            x, [min(v for _, v in g) for g in groups], [max(v for _, v in g) for g in groups],
            color=colour, alpha=0.25, linewidth=0, label=f"{series.label}, range",
        )  # fmt: skip
    stroke = {"line": STROKES[number % len(STROKES)], "points": "-", "scattered": ""}[series.kind]
    marked = series.kind in ("points", "scattered") or len(groups) == 1
    marker = MARKERS[number % len(MARKERS)] if marked else ""
    for place, spread in zip(series.x, series.spread, strict=False):
        if spread:
            axes.plot((place, place), spread, color=colour, linewidth=1.2, marker="_", markersize=6)
    every = 1 if series.kind == "scattered" else math.ceil(len(groups) / MARKED)
    axes.plot(x, y, linestyle=stroke, color=colour, marker=marker, markevery=every, label=series.label)


def _draw_bars(axes: "Axes", bars: Bars, shift: float, thick: float, colour: str) -> None:
    known = [(row, value) for row, value in enumerate(bars.values) if value is not None and math.isfinite(value)]
    places = [row + shift for row, _ in known]
    axes.barh(places, [value for _, value in known], thick, color=colour, label=bars.label)
    for place, (row, value) in zip(places, known, strict=True):
        spread = bars.spread[row] if row < len(bars.spread) else None
        if spread:
            axes.plot(spread, (place, place), color=INK, linewidth=1.2, marker="|", markersize=6)
        end = (max(value, *spread) if spread else value, place)
        axes.annotate(quantity(value), end, (4, 0), textcoords="offset points", va="center", fontsize=9)


def _scale(axes: "Axes", drawn: Sequence[Series], scale: Scale) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    values = [y for one in drawn for _, y in one.known()]
    places = [x for one in drawn for x, _ in one.known()]
    logarithmic = []
    if scale in ("log", "both log") and min(values) > 0 and max(values) > 3 * min(values):
        logarithmic.append((axes.yaxis, axes.set_yscale, max(values) / min(values)))
    if scale in ("log x", "both log") and min(places) > 0 and max(places) > 3 * min(places):
        logarithmic.append((axes.xaxis, axes.set_xscale, max(places) / min(places)))
    for axis, set_scale, span in logarithmic:
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span < 1000 else (1.0,), numticks=12))
        axis.set_major_formatter(quantity)
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    if scale == "from zero":
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    if axes.get_xscale() == "linear" and all(float(place).is_integer() for place in places):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_formatter(quantity)


def _legend(figure: "Figure", axes: "Axes") -> None:
    """Below the chart, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 if len(labels) > 1 else 1)


def _in_words(title: str, x_label: str, y_label: str, drawn: Sequence[Series]) -> str:
    """For those who cannot see it."""
    lines = []
    for one in drawn:
        points = one.known()
        (first, begins), (last, ends) = points[0], points[-1]
        lines.append(
            f"{one.label} goes from {quantity(begins)} at {quantity(first)} to {quantity(ends)} at {quantity(last)}"
        )
    return f"{title}: {y_label} against {x_label}. {'; '.join(lines)}."


def _bars_in_words(labels: Sequence[str], groups: Sequence[Bars]) -> str:
    lines = []
    for label, values in zip(labels, zip(*(group.values for group in groups), strict=True), strict=True):
        lines.append(f"{label}: {', '.join('nothing' if value is None else quantity(value) for value in values)}")
    return "; ".join(lines) + "."


def _shortened(label: str, most: int = 34) -> str:
    return label if len(label) <= most else label[: most - 1] + "\u2026"
