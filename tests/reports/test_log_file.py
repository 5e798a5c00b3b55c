"""log.jsonl, read again: whole, half written, resumed, and as CSV."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.reports.log import columns, figures, read_events, write_csv


def step(number: int, **more: Any) -> dict[str, Any]:
    return {"time": 0.5, "event": "step", "step": number, "loss": 1.0 / number, **more}


def validation(number: int) -> dict[str, Any]:
    return {"time": 1.5, "event": "validation", "step": number, "val_loss": 2.0}


def start(number: int) -> dict[str, Any]:
    return {"time": 0.0, "event": "start", "run": "runs/a", "step": number, "parameters": 7}


@pytest.fixture
def log(tmp_path: Path):
    def write(*events: dict[str, Any], end: str = "") -> Path:
        path = tmp_path / "log.jsonl"
        path.write_text("".join(json.dumps(event) + "\n" for event in events) + end)
        return path

    return write


def test_events(log) -> None:
    events = [start(0), step(1), {"event": "sample", "step": 1, "text": "Ünce\nupon"}]
    assert read_events(log(*events)) == events


def test_half_a_line_at_the_end(log) -> None:
    assert read_events(log(step(1), end='{"event": "st')) == [step(1)]
    assert read_events(log(step(1), end=json.dumps(step(2)))) == [step(1), step(2)]
    assert read_events(log()) == []


@pytest.mark.parametrize("line", ['{"event": "st', "[1]", '{"loss": 1}', "text", '{"event": 3}'])
def test_a_line_that_is_no_event(log, line: str) -> None:
    with pytest.raises(UserError, match=r"log\.jsonl, line 2: this is no event"):
        read_events(log(step(1), end=f"{line}\n"))


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no log in"):
        read_events(tmp_path / "log.jsonl")


def test_a_row_for_each_step() -> None:
    """Numbers only; a validation joins the line of its step, or is a row of its own."""
    rows = figures([start(0), step(1), step(2, note="x", mfu=None), validation(2), validation(3)])
    assert rows == [
        {"time": 0.5, "step": 1, "loss": 1.0},
        {"time": 1.5, "step": 2, "loss": 0.5, "mfu": None, "val_loss": 2.0},
        {"time": 1.5, "step": 3, "val_loss": 2.0},
    ]


def test_a_session_that_goes_on_replaces_what_was_lost() -> None:
    """Killed after step 5, and the last checkpoint was that of step 2, from which it went another way."""
    lost = [start(0), *(step(n, grad_norm=9.0) for n in range(1, 6)), validation(4)]
    rows = figures([*lost, start(2), step(3), step(4)])
    assert [(row["step"], row.get("grad_norm"), row.get("val_loss")) for row in rows] == [
        (1, 9.0, None),
        (2, 9.0, None),
        (3, None, None),
        (4, None, None),
    ]


def test_columns() -> None:
    """The ones that everybody looks for come first."""
    rows = figures([step(1, grad_norm=1.0), validation(1)])
    assert columns(rows) == ["step", "loss", "val_loss", "time", "grad_norm"]


def test_csv() -> None:
    rows = figures([step(1, mfu=None), step(2, grad_norm=0.1), validation(3)])
    file = io.StringIO()
    write_csv(rows, file)
    assert file.getvalue() == "step,loss,val_loss,time,mfu,grad_norm\n1,1.0,,0.5,,\n2,0.5,,0.5,,0.1\n3,,2.0,1.5,,\n"
    read = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [float(row["loss"]) for row in read[:2]] == [1.0, 0.5]


def test_csv_of_nothing() -> None:
    file = io.StringIO()
    write_csv([], file)
    assert file.getvalue().strip() == ""
