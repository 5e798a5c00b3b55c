"""What a benchmark returns, and its file."""

import json
import math
from pathlib import Path

import pytest

from tinytale_mlx.benchmarks.results import Column, Measured, Report, all_to_json, read
from tinytale_mlx.errors import UserError


def example() -> Report:
    report = Report("speed", "How fast?", "tinytale bench speed", True, machine={"device": "M2", "versions": {}})
    table = report.table(
        "Speeds", ["program"], [Column("speed", "tokens/s", "higher"), Column("same text")], ["a note"]
    )
    plot = report.plot("Speed", Column("size"), Column("speed", "tokens/s", "higher"), logarithmic=True)
    fast, absent = table.row("ours"), table.row("theirs")
    for speed in (3.0, 1.0, 2.0):
        fast.add(speed=speed)
    fast.set(same_text="yes")
    absent.missing = "No module named 'torch'"
    line = plot.line("ours")
    line.add(1e6, fast.measured("speed"))
    line.add(2e6, 5.0)
    line.add(3e6, Measured())
    return report


def test_json_has_medians_and_spread_and_only_points_that_were_measured():
    content = example().to_json()
    rows = content["tables"][0]["rows"]
    assert rows[0]["cells"]["speed"] == {"median": 2.0, "min": 1.0, "max": 3.0, "values": [3.0, 1.0, 2.0]}
    assert rows[0]["cells"]["same text"] == "yes"
    assert rows[1] == {"key": ["theirs"], "cells": {}, "missing": "No module named 'torch'"}
    assert content["plots"][0]["lines"][0]["points"] == [
        {"x": 1e6, "y": 2.0, "low": 1.0, "high": 3.0},
        {"x": 2e6, "y": 5.0, "low": None, "high": None},
    ]


def test_round_trip(tmp_path: Path):
    one = example().to_json()
    file = tmp_path / "speed.json"
    file.write_text(json.dumps(one))
    assert [report.to_json() for report in read(file)] == [one]
    several = all_to_json([example(), example()])
    file.write_text(json.dumps(several))
    assert all_to_json(read(file)) == several


def test_what_is_not_finite_is_nothing():
    report = Report("speed", "How fast?")
    row = report.table("t", ["k"], [Column("a"), Column("b")]).row("one")
    row.set(a=math.nan)
    row.add(b=math.inf)
    assert report.to_json()["tables"][0]["rows"][0]["cells"] == {"a": None, "b": None}
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "this is not JSON"),
        ("[]", "no result of a benchmark"),
        ("{}", "no result of a benchmark in format 1"),
        ('{"format": 1, "name": "x"}', "incomplete"),
        ('{"format": 1, "reports": [{"format": 2}]}', "no result of a benchmark"),
        ('{"format": 1, "reports": 5}', "no result of a benchmark"),
    ],
)
def test_a_file_that_is_none(text: str, message: str, tmp_path: Path):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(UserError, match=f"broken.json: .*{message}"):
        read(file)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.json")
