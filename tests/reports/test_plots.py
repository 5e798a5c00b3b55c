"""Pictures: that they are drawn, hold what they are given, and leave nothing behind."""

import io
import math
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from tinytale_mlx.errors import UserError
from tinytale_mlx.reports import plots
from tinytale_mlx.reports.plots import COLOURS, DPI, HEIGHT, MOST, WIDTH, Bars, Level, Series, bar_chart, line_chart
from tinytale_mlx.reports.wording import duration, number, quantity, with_unit


def pixels(png: bytes) -> np.ndarray:
    return imread(io.BytesIO(png))[..., :3]


def share_of(png: bytes, colour: str) -> float:
    """Of a picture's pixels, how many have about this colour."""
    return float((np.abs(pixels(png) - to_rgb(colour)).max(-1) < 0.02).mean())


def chart(*series: Series, **more: Any) -> plots.Picture:
    picture = line_chart("p", "Title", "x", "y", series, **more)
    assert picture is not None
    return picture


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of each chart, as they were when it was written."""
    found: list[Any] = []
    write = plots._png
    monkeypatch.setattr(plots, "_png", lambda figure: found.append(figure.axes[0]) or write(figure))
    return found


def test_a_line_in_the_size_of_the_house() -> None:
    picture = chart(Series("loss", [1, 2, 3], [3.0, 2.0, 1.0]))
    assert pixels(picture.png).shape == (round(HEIGHT * DPI), round(WIDTH * DPI), 3)
    assert share_of(picture.png, COLOURS[0]) > 0.002
    assert share_of(picture.png, COLOURS[1]) == 0
    assert picture.alt == "Title: y against x. loss goes from 3 at 1 to 1 at 3."


def test_every_series_has_its_colour() -> None:
    series = [Series(str(n), [0, 1], [n, n + 1], "points") for n in range(4)]
    assert all(share_of(chart(*series).png, colour) > 0.001 for colour in COLOURS[:4])


def test_nothing_to_draw() -> None:
    assert line_chart("p", "T", "x", "y", [Series("a", [1, 2], [None, math.nan])]) is None
    assert line_chart("p", "T", "x", "y", []) is None
    assert bar_chart("p", "T", "x", ["a"], [Bars("b", [None])]) is None


def test_what_is_missing_is_left_out(drawn: list[Any]) -> None:
    chart(Series("a", [1, 2, 3, 4], [1.0, None, math.inf, 4.0]))
    assert drawn[0].lines[0].get_xydata().tolist() == [[1, 1], [4, 4]]


def test_a_single_point_is_seen() -> None:
    assert share_of(chart(Series("a", [1], [1.0])).png, COLOURS[0]) > 0.0001


def test_of_many_points_mean_and_extremes_are_drawn(drawn: list[Any]) -> None:
    values = [float(n % 10) for n in range(10 * MOST)]
    chart(Series("a", range(len(values)), values))
    line, band = drawn[0].lines[0].get_ydata(), drawn[0].collections[0].get_paths()[0].vertices[:, 1]
    assert len(line) == MOST
    assert set(line) == {4.5}
    assert (band.min(), band.max()) == (0, 9)


def test_logarithmic_where_it_helps(drawn: list[Any]) -> None:
    chart(Series("a", [1, 100], [8.0, 0.3]), scale="log")
    chart(Series("a", [1, 100], [1.2, 1.1]), scale="log")
    chart(Series("a", [1, 100], [8.0, 0.0]), scale="log")
    chart(Series("a", [1, 100], [8.0, 0.3]), scale="both log")
    chart(Series("a", [1, 100], [8.0, 0.3]), scale="log x")
    scales = [(axes.get_xscale(), axes.get_yscale()) for axes in drawn]
    assert scales == [("linear", "log"), ("linear", "linear"), ("linear", "linear"), ("log", "log"), ("log", "linear")]


def test_levels_and_marks(drawn: list[Any]) -> None:
    levels = [Level("forecast", 5.0), Level("estimate", 1.0, 2.0)]
    chart(Series("a", [0, 10], [1.0, 2.0]), levels=levels, marks=[4.0, 6.0], scale="from zero")
    axes = drawn[0]
    assert axes.get_legend_handles_labels()[1] == ["forecast", "estimate", "a", "resumed"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 5


def test_the_diagonal(drawn: list[Any]) -> None:
    series = Series("recipes", [10, 1000], [20.0, 900.0], "scattered")
    chart(series, scale="both log", diagonal=True)
    points, diagonal = drawn[0].lines
    assert points.get_linestyle() == "None"
    assert diagonal.get_xydata().tolist() == [[10, 10], [1000, 1000]]


def test_spread_is_drawn_beside_the_middle(drawn: list[Any]) -> None:
    chart(Series("a", [1, 2], [5.0, 6.0], "points", [(4.0, 7.0), None]))
    ends = [tuple(line.get_ydata()) for line in drawn[0].lines if len(set(line.get_xdata())) == 1]
    assert ends == [(4.0, 7.0)]


def test_bars(drawn: list[Any]) -> None:
    groups = [Bars("ours", [None, 2.0], [None, (1.5, 2.5)]), Bars("theirs", [1.0, 3.0])]
    picture = bar_chart(
        "p", "Ratios", "times", ["small", "a name that is much too long for a phone"], groups, reference=1
    )
    assert picture is not None
    axes = drawn[0]
    assert [bar.get_width() for bar in axes.patches] == [2.0, 1.0, 3.0]
    assert axes.get_legend_handles_labels()[1] == ["ours", "theirs"]
    assert [text.get_text() for text in axes.texts] == ["2", "1", "3"]
    assert axes.texts[0].xy[0] == 2.5  # beyond the spread
    assert all(len(label.get_text()) < 36 for label in axes.get_yticklabels())
    assert picture.alt.endswith("small: nothing, 1; a name that is much too long for a phone: 2, 3.")


def test_names_are_names(drawn: list[Any]) -> None:
    """Dollar signs are mathematics to matplotlib, and a broken formula an error."""
    chart(Series("a $\\frac$ b", [1, 2], [1.0, 2.0]), Series("$", [1, 2], [2.0, 3.0]))


def test_nothing_global_is_changed() -> None:
    with matplotlib.rc_context({"font.size": 77}):
        chart(Series("a", [1, 2], [1.0, 2.0]))
        assert matplotlib.rcParams["font.size"] == 77


def test_no_place_for_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Matplotlib requires access to a writable\ncache directory")

    monkeypatch.setattr("builtins.__import__", _failing(refuse))
    with pytest.raises(UserError, match="pictures cannot be drawn: Matplotlib requires access to a writable cache"):
        chart(Series("a", [1, 2], [1.0, 2.0]))


def _failing(refuse: Any) -> Any:
    real = __import__
    return lambda name, *rest, **more: refuse() if name == "matplotlib" else real(name, *rest, **more)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00025, "0.00025"), (12.34, "12.3"), (999, "999"), (999.6, "1k"), (1000, "1k"), (1382400, "1.38M"),
     (999_999, "1M"), (6.6e9, "6.6B"), (-2500, "-2.5k")],
)  # fmt: skip
def test_quantity(value: float, text: str) -> None:
    assert quantity(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1056e6, "bytes", "1,056"), (0.8571, "share", "85.7%"), (0.91, "x", "0.910 x"), (1239.4, "tokens/s", "1,239"),
     (0.000123, "s", "1.2e-04"), (3, "", "3"), (0.0, "", "0.000"), (42.25, "", "42.2")],
)  # fmt: skip
def test_number(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_units_and_durations() -> None:
    assert [with_unit("a", unit) for unit in ("bytes", "x", "share", "s", "")] == ["a, MB", "a", "a", "a, s", "a"]
    assert [duration(seconds) for seconds in (0, 59.6, 754, 7540)] == ["0:00", "1:00", "12:34", "2:05:40"]
