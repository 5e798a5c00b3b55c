"""Work in processes of its own: what comes back, whose turn it is, and what a row says of one that fails."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark_workers as work
import pytest

from tinytale_mlx.benchmarks.apart import Unavailable, Worker, call, excused, take_turns
from tinytale_mlx.benchmarks.results import Row

HERE = {"PYTHONPATH": str(Path(__file__).parent)}


def started(function: Callable[..., Any], *arguments: Any) -> Callable[[], Worker]:
    return functools.partial(Worker, function, *arguments, environment=HERE)


def test_a_call_is_elsewhere_and_what_it_prints_is_no_answer():
    found = call(work.echo, 1, "ä", [2.5, None], environment=HERE)
    assert found["arguments"] == [1, "ä", [2.5, None]]
    assert found["process"] != os.getpid()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (work.needs_a_package, "No module named 'a_package_that_nobody_has'; the extra `peers` brings it"),
        (work.refuses, "there is no such thing"),
        (work.dies, "the process was killed, as it happens when memory runs out"),
    ],
)
def test_a_row_says_why_it_has_no_figures(function: Callable[[], None], reason: str):
    row = Row(["a peer"])
    with excused(row):
        row.set(never=call(function, environment=HERE)["figure"])
    assert (row.missing, row.cells) == (reason, {})


def test_a_call_that_fails_otherwise_is_unavailable_too():
    with pytest.raises(Unavailable, match="RuntimeError: all of it is lost"):
        call(work.crash_after, 0, environment=HERE)


def test_turns_alternate_warm_up_does_not_count_and_the_others_go_on():
    rows = [Row(["good"]), Row(["crashes"]), Row(["known to be missing"], missing="no room")]
    sides = list(zip(rows, [started(work.count, 10), started(work.crash_after, 2), started(work.dies)], strict=True))
    rounds = list(take_turns(sides, rounds=3, warm_up=1))
    assert [found[0] and found[0]["number"] for found in rounds] == [11, 12, 13]
    assert len({found[0]["process"] for found in rounds if found[0]}) == 1
    assert [found[1] for found in rounds] == [{"number": 1}, None, None]
    assert [found[2] for found in rounds] == [None] * 3
    assert [row.missing for row in rows] == [None, "RuntimeError: all of it is lost", "no room"]


def test_a_worker_ends_with_its_block():
    with started(work.count, 0)() as worker:
        process = worker.turn()["process"]
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
