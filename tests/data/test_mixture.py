"""Several sources: each has its share at every step, shows its rows epoch by epoch, and ends where it must."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytale_mlx.data.batches import Batches, Order, Shuffled
from tinytale_mlx.data.mixture import Mixture, Source
from tinytale_mlx.data.packing import PackedRows
from tinytale_mlx.data.rows import WindowRows
from tinytale_mlx.errors import UserError

NAMES = "abcdefgh"


def source(number: int, count: int, weight: float | None = None, epochs: int | None = None) -> Source:
    """`count` rows of one prediction; their tokens are above 1000 x number."""
    tokens = np.arange(1000 * number, 1000 * number + count + 1, dtype=np.uint16)
    return Source(NAMES[number], WindowRows(tokens, 1, 0), weight, epochs)


def mixed(*counts: int, weights: list[float] | None = None, temperature: float = 1.0) -> Mixture:
    given = [None] * len(counts) if weights is None else weights
    sources = [source(i, count, weight) for i, (count, weight) in enumerate(zip(counts, given, strict=True))]
    return Mixture(sources, 5, temperature)


def drawn(order: Order, rows: int) -> np.ndarray:
    """The number of the source of each of the first rows."""
    return order.take(np.arange(rows)).tokens[:, 0] // 1000


# ---------------------------------------------------------------------- shares
@given(weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
@example(weights=[1.0] * 5 + [15.0])  # roundings add up where the lightest come first
@example(weights=[0.01] * 6 + [1.0, 0.01])
@settings(max_examples=40, deadline=None)
def test_every_share_is_right_at_every_step(weights: list[float]) -> None:
    order = mixed(*[50] * len(weights), weights=weights)
    of = drawn(order, 600)
    for number, weight in enumerate(weights):
        expected = np.arange(1, 601) * weight / sum(weights)
        assert np.abs(np.cumsum(of == number) - expected).max() < 2


def test_without_weights_all_epochs_end_together() -> None:
    """As if the sources were one text: after 160 rows, each row of each source has been shown once."""
    order = mixed(100, 7, 53)
    for epoch in range(3):
        rows = order.take(np.arange(160 * epoch, 160 * (epoch + 1))).tokens[:, 0]
        assert Counter((rows // 1000).tolist()) == {0: 100, 1: 7, 2: 53}
        if epoch == 0:  # later windows are shifted
            assert len(set(rows.tolist())) == 160


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.9), (2.0, 0.75), (1e9, 0.5), (0.5, 81 / 82)])
def test_temperature(temperature: float, expected: float) -> None:
    """9 to 1; its root, 3 to 1; alike; squared, 81 to 1. Of weights as of sizes."""
    for order in (mixed(90, 10, temperature=temperature), mixed(5, 5, weights=[4.5, 0.5], temperature=temperature)):
        assert order.shown(100_000)["a"] == pytest.approx(expected * 100_000, abs=1)


def test_a_source_starts_over_on_its_own() -> None:
    order = mixed(10, 1000, weights=[1, 1])
    rows = order.take(np.arange(200)).tokens[:, 0]
    small, large = rows[rows < 1000], rows[rows >= 1000]
    assert len(small) == len(large) == 100
    assert len(set(large.tolist())) == 100
    for epoch in range(10):
        assert sorted(small[10 * epoch : 10 * (epoch + 1)].tolist()) == list(range(10))
    assert len({tuple(small[10 * epoch : 10 * (epoch + 1)]) for epoch in range(10)}) == 10


# ---------------------------------------------------------------------- an order
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_it_is_pure_and_ranks_share_it(ranks: int) -> None:
    order = mixed(30, 20, 10, weights=[5, 3, 2])
    straight = order.take(np.arange(160))
    for step in (39, 3, 20, 0):
        shares = [Batches(mixed(30, 20, 10, weights=[5, 3, 2]), 4, rank, ranks).at(step) for rank in range(ranks)]
        for got, expected in zip(zip(*shares, strict=True), straight, strict=True):
            if expected is not None:
                np.testing.assert_array_equal(np.concatenate(got), expected[4 * step : 4 * step + 4])


def test_a_step_far_away_is_there_at_once() -> None:
    order = mixed(30, 20)
    assert order.take(np.array([10**15])).tokens.shape == (1, 2)
    assert order.shown(10**15) == {"a": 6 * 10**14, "b": 4 * 10**14}


@given(rows=st.integers(0, 500))
@settings(max_examples=30, deadline=None)
def test_shown_counts_what_was_taken(rows: int) -> None:
    order = mixed(30, 20, 10, weights=[0.5, 0.311, 0.013])
    of = drawn(order, 500)[:rows]
    assert order.shown(rows) == {NAMES[number]: int((of == number).sum()) for number in range(3)}


def test_batches_count_rows_of_all_ranks() -> None:
    assert Batches(mixed(30, 10), 8, rank=1, ranks=2).shown(5) == {"a": 30, "b": 10}


def test_one_source_is_the_plain_order() -> None:
    plain, alone = Shuffled(source(0, 37).rows, 5), mixed(37)
    for step in range(20):
        for got, expected in zip(Batches(alone, 8).at(step), Batches(plain, 8).at(step), strict=True):
            np.testing.assert_array_equal(got, expected)
    assert alone.shown(11) == {"a": 11}


def test_segments_are_kept() -> None:
    """Of packed rows with a mask: the row of documents of two tokens comes with its own segments."""
    two, four = (PackedRows(np.arange(8), np.arange(0, 9, size), 3, mask=True) for size in (2, 4))
    order = Mixture([Source("two", two), Source("four", four)], 0)
    batch = order.take(np.arange(4))
    assert batch.segments is not None
    assert Counter(map(tuple, batch.segments.tolist())) == {(0, 0, 1, 1): 2, (0, 0, 0, 0): 2}
    assert batch.weights.sum(axis=1).tolist() == [2.0 if row[2] else 3.0 for row in batch.segments]


# ---------------------------------------------------------------------- the end of a source
@pytest.mark.parametrize("weights", [[1, 1, 1], [0.7, 0.2, 0.1], [0.9, 0.0999, 0.0001]], ids=str)
def test_the_end_is_the_first_row_too_many(weights: list[float]) -> None:
    sources = [source(0, 40, weights[0], 2), source(1, 15, weights[1], 3), source(2, 10, weights[2])]
    order = Mixture(sources, 0)
    of = drawn(order, 1000)
    first = {0: int(np.flatnonzero(of == 0)[80]), 1: int(np.append(np.flatnonzero(of == 1), [9999] * 46)[45])}
    number = min(first, key=first.__getitem__)
    assert order.end is not None
    assert (order.end.position, order.end.source, order.end.epochs) == (first[number], NAMES[number], (2, 3)[number])


def test_a_run_that_shows_a_source_too_often_is_refused() -> None:
    """40 rows twice, every other row: 160 rows, and then no more. In batches of 4, two to a step, that is 20 steps."""
    batches = Batches(Mixture([source(0, 40, 1.0, 2), source(1, 400, 1.0)], 0), 4)
    batches.check(20, lambda step: 2 * step)
    batches.check(40)
    with pytest.raises(UserError) as error:
        batches.check(21, lambda step: 2 * step)
    assert str(error.value) == (
        "the source a runs out in step 21: it may be shown in 2 epochs (data.source); raise that, give it less "
        "weight, or set train.steps to 20 at most"
    )


def test_one_epoch_of_everything_is_allowed_to_the_row() -> None:
    order = Mixture([source(0, 61, None, 1), source(1, 35, None, 1)], 0)
    Batches(order, 8).check(12)
    with pytest.raises(UserError, match="runs out in step 13"):
        Batches(order, 8).check(13)


def test_the_end_of_a_single_source() -> None:
    assert Mixture([source(0, 40, None, 3)], 0).end == (120, "a", 3)


# ---------------------------------------------------------------------- bad input
def test_refusals() -> None:
    with pytest.raises(UserError, match="names no source"):
        Mixture([], 0)
    with pytest.raises(UserError, match="source b has too little text for one row of 1 tokens"):
        mixed(5, 0)
    with pytest.raises(UserError, match="source b has no weight and others have"):
        Mixture([source(0, 5, 1.0), source(1, 5)], 0)
    with pytest.raises(UserError, match=r"data\.temperature 0\.001 leaves b no share"):
        mixed(5, 5, weights=[1.0, 0.1], temperature=0.001)
    for order in (mixed(5, 5), mixed(10), mixed(10, temperature=2.0)):
        with pytest.raises(UserError, match="fills 10 rows of 1 tokens"):
            Batches(order, 11)
    with pytest.raises(UserError, match="fills 0 rows of 1 tokens"):
        Batches(mixed(0), 1)
