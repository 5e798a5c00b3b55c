"""A shuffled order of any length, computed one position at a time."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytale_mlx.data.order import ROUNDS, counting, draw, permute


def keys(seed: int) -> np.ndarray:
    return np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)


@given(size=st.integers(1, 5000), seed=st.integers(0, 2**64))
@settings(max_examples=100, deadline=None)
def test_permute_is_a_bijection(size: int, seed: int) -> None:
    assert sorted(permute(np.arange(size), size, keys(seed))) == list(range(size))


@given(size=st.integers(10**9, 2**44), seed=st.integers(0, 2**32), start=st.integers(0, 10**8))
@settings(max_examples=50, deadline=None)
def test_permute_stays_in_range_and_distinct_where_it_cannot_be_listed(size: int, seed: int, start: int) -> None:
    values = permute(np.arange(start, start + 500), size, keys(seed))
    assert values.min() >= 0
    assert values.max() < size
    assert len(set(values.tolist())) == 500


def test_permute_does_not_depend_on_what_is_asked_together() -> None:
    together = permute(np.arange(1000), 1000, keys(5))
    assert [int(permute(np.array([i]), 1000, keys(5))[0]) for i in range(1000)] == together.tolist()


def test_permute_reaches_every_order_about_equally_often() -> None:
    seen = Counter(tuple(permute(np.arange(4), 4, keys(seed)).tolist()) for seed in range(2400))
    assert len(seen) == 24
    assert all(50 < count < 170 for count in seen.values())  # 100 expected, standard deviation 10


def test_permute_moves_neighbours_apart() -> None:
    steps = np.abs(np.diff(permute(np.arange(10_000), 10_000, keys(1))))
    assert 3000 < steps.mean() < 3700  # a third of the range for a random order; 1 for none


def test_every_place_has_numbers_of_its_own() -> None:
    places = [(0,), (1,), (0, 0), (0, 1), (1, 0)]
    assert len({draw(seed, *place).tobytes() for seed in (0, 1) for place in places}) == 10
    assert draw(3, 5).tobytes() == draw(3, 5).tobytes()


def test_counting() -> None:
    assert counting(np.array([2, 0, 3, 1])).tolist() == [0, 1, 0, 1, 2, 0]
    assert counting(np.array([], np.int64)).tolist() == []
