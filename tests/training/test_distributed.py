"""Several processes take the steps of one; on the loopback, through MLX's ring."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from one_of_several import CASES
from ring import free_ports, killed_at_the_end, needs_ring, run, start

from tinytale_mlx.training import distributed
from tinytale_mlx.training.distributed import MESSAGE, world

WORKER = str(Path(__file__).with_name("one_of_several.py"))
Found = dict[str, np.ndarray]


def results_of(folder: Path, ranks: int) -> list[Found]:
    for code, out, err in run(folder, WORKER, str(folder), ranks=ranks):
        assert code == 0, out + err
    files: list[Any] = [mx.load(str(folder / f"{rank}.safetensors")) for rank in range(ranks)]
    return [{name: np.array(array) for name, array in one.items()} for one in files]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    return results_of(tmp_path_factory.mktemp("two"), 2)


def check_training(found: list[Found], case: str) -> None:
    weights, results = CASES[case](None)
    alone = np.array(results, np.float32)
    for name in ("results", *weights):
        mine = [one[f"{case}/{name}"] for one in found]
        for other in mine[1:]:
            assert np.array_equal(mine[0], other), f"{name} differs between the processes"
        expected = alone if name == "results" else np.array(weights[name])
        assert np.allclose(mine[0], expected, rtol=1e-5, atol=2e-6), name


@needs_ring
@pytest.mark.parametrize("case", CASES)
def test_two_processes_take_the_steps_of_one(two: list[Found], case: str):
    """However unevenly their rows are filled; and the two are equal to the last bit."""
    check_training(two, case)


@needs_ring
@pytest.mark.slow
def test_three_processes_take_the_steps_of_one(tmp_path: Path):
    found = results_of(tmp_path, 3)
    for case in CASES:
        check_training(found, case)


@needs_ring
def test_they_tell_each_other(two: list[Found]):
    for one in two:
        assert one["ranks"].tolist() == [8]
        assert one["sum"].tolist() == [2**25 + 1, 2]  # which float32 can't hold
        assert one["any"].tolist() == [1, 0]
        assert bytes(one["text"].astype(np.uint8)) == b"a tale"
        assert one["nothing"] == 0
        assert one["sign"] == 1  # of -0.0, which a sum of floats would lose
        assert (one["array"] == 1.5).all()
        assert one["array"].shape == (3, 5)
        assert one["unfit"].tolist() == [1]
    assert two[0]["seeds"] == 5
    assert two[1]["seeds"] != 5


@needs_ring
def test_gradients_are_summed_message_by_message(two: list[Found]):
    """80 MB of them, and besides never more than two messages."""
    assert all(one["memory"] <= 2 * MESSAGE + 1e5 for one in two)


@needs_ring
def test_who_is_left_alone_is_told(tmp_path: Path):
    program = "import os; from tinytale_mlx.training.distributed import world; w = world()\n"
    waits, dies = program + "w.add(1)", program + "os._exit(9)"
    ports = free_ports(2)
    with killed_at_the_end([start(r, ports, tmp_path, "-c", p) for r, p in enumerate((waits, dies))]) as processes:
        said = processes[0].communicate(timeout=60)[1]
    assert "Lost: the connection to the other processes of this training was lost" in said


# ---------------------------------------------------------------------- without other processes
def test_alone_nothing_is_exchanged():
    assert world().size == 1
    assert world().leads
    total = (mx.array(1.0), mx.array(2.0), {"a": mx.array(3.0)})
    assert world().all_sum(total) is total
    assert world().from_first(b"tale") == b"tale"
    assert world().add(1, 2) == [1, 2]
    assert [world().any(True), world().any(False)] == [True, False]
    assert world().seed(3) == 3


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [
        ([], []),
        ([1, 1, 1], [(0, 3)]),
        ([MESSAGE], [(0, 1)]),
        ([1, MESSAGE, 1], [(0, 1), (1, 2), (2, 3)]),
        ([MESSAGE // 2] * 5, [(0, 2), (2, 4), (4, 5)]),
    ],
)
def test_small_arrays_share_a_message(sizes: list[int], messages: list[tuple[int, int]]):
    assert list(distributed._messages(sizes)) == messages
