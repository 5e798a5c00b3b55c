"""The reports that the README's tables come from: whole, of a committed state of the code, and of nobody's folders."""

import json
import re
from pathlib import Path

import pytest

from tinytale_mlx.benchmarks.results import COMPLETE, read

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
FILES = sorted(RESULTS.rglob("*.json"))


def test_there_are_some():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(RESULTS)))
def test_it_can_be_compared_with(file: Path):
    for report in read(file):
        assert report.status == COMPLETE
        assert re.fullmatch("[0-9a-f]{7,}", str(report.machine["revision"]))
        assert report.command.startswith("tinytale bench ")
        assert any(row.cells for table in report.tables for row in table.rows)


@pytest.mark.parametrize("file", [*FILES, *RESULTS.rglob("*.jsonl")], ids=lambda file: str(file.relative_to(RESULTS)))
def test_it_names_no_folder_of_the_machine(file: Path):
    for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
        assert not re.search(r"/(home|Users|tmp|root|work|private|var)/", json.dumps(json.loads(line)))
