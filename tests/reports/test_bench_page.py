"""Pages of benchmarks, from what benchmarks/results.py writes."""

from pathlib import Path
from typing import Any

import pytest
from html_checks import checked

from tinytale_mlx.benchmarks.results import Column, Report, read
from tinytale_mlx.reports.bench_page import bench_page, compare_page
from tinytale_mlx.reports.page import Facts, Page, Table, Text, to_html

MACHINE: dict[str, Any] = {
    "device": "Apple M2", "backend": "gpu", "cores": 8, "memory_bytes": 8589934592, "platform": "macOS",
    "python": "3.11", "blas": "the system's", "revision": "e3d4a94", "versions": {"mlx": "0.32.4", "torch": None},
}  # fmt: skip
SPEED = Column("speed", "tokens/s", "higher")


def training(scale: float = 1.0, **more: Any) -> Report:
    """Two programs of which one is missing, in two rounds."""
    report = Report(
        "training", "How fast is a step?", "tinytale bench training", date="2026-11-21T14:03:00+00:00", seconds=31.2,
        cpu_seconds=58.0, machine=MACHINE, notes=["The first turn is a **warm-up**."], **more,
    )  # fmt: skip
    table = report.table(
        "Steps", ["model", "program"], [SPEED, Column("beside it", "x", "higher"), Column("peak", "bytes")]
    )
    line = report.plot("Speed against size", Column("parameters"), SPEED, logarithmic=True).line("tinytale")
    for model, size in (("small", 1e6), ("large", 2e7)):
        ours, theirs = table.row(model, "tinytale"), table.row(model, "mlx-lm")
        for turn in (1.0, 1.1):
            ours.add(speed=turn * scale * 1e9 / size, beside_it=1.0)
            theirs.add(beside_it=turn * 1.5)
        ours.set(peak=304_000_000)
        line.add(size, ours.measured("speed"))
    table.row("small", "PyTorch").missing = "No module named 'torch'"
    return report


def memory(**more: Any) -> Report:
    report = Report(
        "memory", "What does each switch save?", "tinytale bench memory", date="2026-11-21", machine=MACHINE, **more
    )
    table = report.table(
        "Switches", ["switches"], [Column("peak", "bytes", "lower"), Column("share", "share")], ["a note"]
    )
    bars = report.plot("What each saves", Column("switches"), Column("peak", "bytes", "lower"), "bar").line("peak")
    for name, peak in (("plain", 1056e6), ("chunks", 304e6)):
        table.row(name).set(peak=peak, share=peak / 1056e6)
        bars.add(name, peak)
    diagonal = report.plot("Forecast and fact", Column("forecast", "bytes"), Column("measured", "bytes"), "diagonal")
    diagonal.line("recipes").add(200e6, 210e6)
    return report


def page_of(*reports: Report) -> Page:
    page = bench_page([report.to_json() for report in reports])
    checked(to_html(page))
    return page


def tables(page: Page) -> list[list[list[str]]]:
    return [[list(t.head), *map(list, t.rows)] for t in page.blocks if isinstance(t, Table)]


def test_a_table_with_rounds_and_a_missing_peer() -> None:
    assert tables(page_of(training()))[0] == [
        ["model", "program", "speed, tokens/s", "beside it", "peak, MB", ""],
        ["small", "tinytale", "1,050 (1,000 to 1,100)", "1.000 x (1.000 to 1.000)", "304.0", ""],
        ["small", "mlx-lm", "-", "1.575 x (1.500 to 1.650)", "-", ""],
        ["large", "tinytale", "52.5 (50.0 to 55.0)", "1.000 x (1.000 to 1.000)", "304.0", ""],
        ["large", "mlx-lm", "-", "1.575 x (1.500 to 1.650)", "-", ""],
        ["small", "PyTorch", "-", "-", "-", "No module named 'torch'"],
    ]


def test_in_a_minute() -> None:
    """Ratios of the others where there are any; else the best row and the worst."""
    page = page_of(training(), memory())
    assert tables(page)[0] == [
        ["question", "answer"],
        ["How fast is a step?", "beside it: 1.575 x (small / mlx-lm), 1.575 x (large / mlx-lm)"],
        ["What does each switch save?", "peak, MB: 304.0 (chunks), 1,056 (plain)"],
    ]
    facts = dict(next(block for block in page.blocks if isinstance(block, Facts)).facts)
    assert facts == {
        "machine": "Apple M2, gpu", "measured": "2 of 2", "on": "2026-11-21", "in": "0:31", "revision": "e3d4a94",
    }  # fmt: skip


def test_pictures() -> None:
    page = page_of(training(), memory())
    alts = {picture.name: picture.alt for picture in page.pictures()}
    assert list(alts) == ["training-0", "training-ratios-0", "memory-0", "memory-1"]
    assert "tinytale goes from 1.05k at 1M to 52.5 at 20M" in alts["training-0"]
    assert "small / mlx-lm: 1.58" in alts["training-ratios-0"]
    assert alts["memory-0"] == "What each saves, peak, MB. plain: 1.06k; chunks: 304."
    assert "recipes goes from 210 at 200 to 210 at 200" in alts["memory-1"]


def test_shares_are_drawn_as_per_cent() -> None:
    report = memory()
    report.plot("Used", Column("batch"), Column("used", "share")).line("peak").add(8, 0.25)
    assert "Used: used, % against batch. peak goes from 25 at 8 to 25 at 8." in page_of(report).pictures()[-1].alt


def test_what_is_said_of_the_measurement() -> None:
    text = checked(to_html(page_of(training(quick=True), memory(status="interrupted")))).text
    for said in ("Measured with --quick", "memory: interrupted", "tinytale bench training", "turn is a warm-up",
                 "a note", "0.32.4", "8,590 MB", "58 CPU seconds"):  # fmt: skip
        assert said in text
    assert "torch-" not in text


def test_a_benchmark_that_measured_nothing() -> None:
    """Ctrl-C at once, or a process that died: it is there, and the others too."""
    lost = Report("soak", "Does it survive?", "tinytale bench soak", status="failed: MemoryError")
    page = page_of(training(), lost)
    assert tables(page)[0][2] == ["Does it survive?", "failed: MemoryError"]
    assert page_of(lost).pictures() == []
    assert "Apple M2, gpu" in checked(to_html(page_of(lost, training()))).text
    assert bench_page([]).pictures() == []


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """The page of a file is that of the report itself."""
    import json

    file = tmp_path / "training.json"
    file.write_text(json.dumps(training().to_json()))
    assert to_html(page_of(*read(file))) == to_html(page_of(training()))


# ---------------------------------------------------------------------- two machines
def compared(first: list[Report], second: list[Report]) -> Page:
    page = compare_page([one.to_json() for one in first], [one.to_json() for one in second], ("linux", "mac"))
    checked(to_html(page))
    return page


def strong(page: Page) -> list[str]:
    return [block.text for block in page.blocks if isinstance(block, Text) and block.text.startswith("**")]


def test_two_of_the_same_machine() -> None:
    page = compared([training()], [training(scale=2)])
    assert strong(page) == ["**Steps**"]
    assert tables(page)[1][:4] == [
        ["model / program", "figure", "linux", "mac", "times"],
        ["small / tinytale", "speed, tokens/s", "1,050", "2,100", "2.000 x"],
        ["", "beside it", "1.000 x", "1.000 x", "1.000 x"],
        ["", "peak, MB", "304.0", "304.0", "1.000 x"],
    ]


@pytest.mark.parametrize("change", [{"device": "Apple M4"}, {"memory_bytes": 17179869184}, {"backend": "cpu"}])
def test_different_machines(change: dict[str, Any]) -> None:
    other = training()
    other.machine = MACHINE | change
    assert strong(compared([training()], [other]))[0].startswith("**These are different machines")


def test_other_options_are_said() -> None:
    assert "**Not measured with the same options: training.**" in strong(compared([training()], [training(quick=True)]))
    other = training(options={"rounds": 9})
    assert "**Not measured with the same options: training.**" in strong(compared([training()], [other]))


def test_what_only_one_has() -> None:
    text = checked(to_html(compared([training()], [memory()]))).text
    assert "Only linux has this." in text
    assert "Only mac has: What does each switch save?" in text
    both = training()
    both.tables[0].rows.pop()
    columns = len(both.tables[0].columns)
    assert len(tables(compared([training()], [both]))[1]) == 1 + columns * len(both.tables[0].rows)


def test_nothing_to_compare() -> None:
    assert compared([], [training()]).pictures() == []
