"""Batches are a pure function of (seed, step), and every window comes once per epoch."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytale_mlx.data.batches import (
    ROUNDS,
    Batches,
    document_batches,
    document_starts,
    permute,
    validation_batches,
)
from tinytale_mlx.errors import UserError

FIRST = [570, 490, 920, 120, 740, 640, 670, 80]
ACROSS = [730, 230, 900, 380, 871, 211, 421, 331]


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


def test_first_epoch_is_the_plain_windows_each_once() -> None:
    tokens = np.arange(1000, 1000 + 10 * 7 + 1, dtype=np.uint16)
    inputs, weights = zip(*(Batches(tokens, 7, 5, seed=3).at(step) for step in range(2)), strict=True)
    rows = sorted(map(tuple, np.concatenate(inputs).tolist()))
    assert rows == [tuple(range(1000 + 7 * w, 1000 + 7 * w + 8)) for w in range(10)]
    assert all((weight == 1).all() for weight in weights)


def test_shapes_and_types() -> None:
    tokens, weights = Batches(np.arange(70_000, dtype=np.uint32), 16, 4, seed=0).at(9)
    assert (type(tokens), tokens.dtype, tokens.shape) == (np.ndarray, np.int32, (4, 17))
    assert (type(weights), weights.dtype, weights.shape) == (np.ndarray, np.float32, (4, 16))


@given(context=st.integers(1, 9), batch_size=st.integers(1, 6), extra=st.integers(0, 60), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_every_epoch_predicts_its_windows_once(context: int, batch_size: int, extra: int, seed: int) -> None:
    length = batch_size * context + 1 + extra
    batches = Batches(np.arange(length, dtype=np.uint16), context, batch_size, seed)
    windows = (length - 1) // context
    steps = -(-3 * windows // batch_size)
    rows = np.concatenate([batches.at(step)[0] for step in range(steps)])
    for epoch in range(3):
        block = rows[epoch * windows : (epoch + 1) * windows]
        assert ((np.diff(block) % length) == 1).all()  # consecutive tokens, or over the end to the beginning
        inputs = block[:, :-1].ravel()
        assert len(set(inputs.tolist())) == windows * context


def test_later_epochs_show_other_windows_and_leave_out_other_tokens() -> None:
    batches = Batches(np.arange(10 * 16 + 9, dtype=np.uint16), 16, 10, seed=1)
    epochs = [batches.at(epoch)[0][:, 1:] for epoch in range(20)]
    assert len({tuple(sorted(epoch[:, 0].tolist())) for epoch in epochs}) > 8
    assert set(np.concatenate(epochs).ravel().tolist()) == set(range(10 * 16 + 9))


def test_at_is_pure() -> None:
    tokens = np.random.default_rng(0).integers(0, 60_000, 5000).astype(np.uint16)
    one, two = Batches(tokens, 32, 4, seed=7), Batches(tokens, 32, 4, seed=7)
    straight = [one.at(step)[0] for step in range(120)]  # three epochs
    for step in (100, 3, 119, 3, 0, 55):
        np.testing.assert_array_equal(two.at(step)[0], straight[step])
    one.at(0)[0][:] = 0  # what is handed out belongs to the caller
    one.at(0)[1][:] = 0
    np.testing.assert_array_equal(one.at(0)[0], straight[0])
    assert one.at(0)[1].all()


def test_the_order_is_frozen() -> None:
    """A checkpoint of today must resume on the same batches tomorrow."""
    batches = Batches(np.arange(1001, dtype=np.uint16), 10, 8, seed=42)
    assert batches.at(0)[0][:, 0].tolist() == FIRST
    assert batches.at(12)[0][:, 0].tolist() == ACROSS  # windows 96 to 99 of epoch 0, then 0 to 3 of epoch 1


def test_seed_and_epoch_change_the_order() -> None:
    tokens = np.arange(801, dtype=np.uint16)
    orders = {
        tuple((Batches(tokens, 1, 800, seed).at(epoch)[0][:, 0]).tolist())
        for seed, epoch in itertools.product(range(4), range(4))
    }
    assert len(orders) == 16


def test_a_negative_step_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no batch -1"):
        Batches(np.arange(100), 4, 2, seed=0).at(-1)


def test_too_short_a_text_is_refused_and_the_least_one_is_not() -> None:
    with pytest.raises(UserError) as error:
        Batches(np.zeros(812, np.uint16), 256, 8, seed=0)
    assert str(error.value) == (
        "the training text has 812 tokens, and one batch of 8 x 256 needs 2,049; "
        "use more text, or a smaller train.batch_size or model.context"
    )
    with pytest.raises(UserError):
        Batches(np.zeros(2048, np.uint16), 256, 8, seed=0)
    assert Batches(np.zeros(2049, np.uint16), 256, 8, seed=0).windows == 8


@given(length=st.integers(2, 200), context=st.integers(1, 12), batch_size=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_validation_predicts_every_token_once_in_order(length: int, context: int, batch_size: int) -> None:
    text = np.random.default_rng(length).integers(1, 60_000, length).astype(np.uint16)
    before, targets = [], []
    for tokens, weights in validation_batches(text, context, batch_size):
        assert (tokens.shape, tokens.dtype) == ((batch_size, context + 1), np.int32)
        assert (weights.shape, weights.dtype) == ((batch_size, context), np.float32)
        assert set(np.unique(weights)) <= {0.0, 1.0}
        before += tokens[:, :-1][weights == 1].tolist()
        targets += tokens[:, 1:][weights == 1].tolist()
        assert (tokens[:, 1:][weights == 0] == 0).all()
    assert targets == text[1:].tolist()
    assert before == text[:-1].tolist()


def test_validation_has_no_batch_too_many() -> None:
    assert len(list(validation_batches(np.zeros(2 * 3 * 4 + 1, np.uint16), 4, 3))) == 2
    assert len(list(validation_batches(np.zeros(2 * 3 * 4 + 2, np.uint16), 4, 3))) == 3


@pytest.mark.parametrize("length", [0, 1])
def test_too_short_a_validation_text_is_refused_at_once(length: int) -> None:
    with pytest.raises(UserError, match=f"validation text has {length} tokens?, and at least 2"):
        validation_batches(np.zeros(length, np.uint16), 4, 2)


def test_document_rows_cover_every_document_from_its_beginning():
    offsets = np.array([0, 5, 6, 16, 25])  # documents of 5, 1, 10 and 9 tokens
    starts = document_starts(offsets, 4)
    assert starts.tolist() == [0, 5, 6, 10, 14, 16, 20]  # 4 predictions in one row, 9 in three, 8 in two
    tokens = np.arange(25, dtype=np.uint16)
    batches = Batches(tokens, 4, 2, seed=0, starts=starts)
    rows = np.concatenate([batches.at(step)[0] for step in range(7)])  # two epochs of seven rows
    assert sorted(rows[:7, 0].tolist()) == sorted(rows[7:, 0].tolist()) == starts.tolist()
    for row in rows:
        assert row.tolist() == [(row[0] + i) % 25 for i in range(5)]
    with pytest.raises(UserError, match="has 7 documents, and one batch takes 8"):
        Batches(np.arange(40), 4, 8, seed=0, starts=starts)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_documents_are_scored_on_their_own_and_completely(batch_size):
    offsets = np.array([0, 5, 6, 16, 25])
    tokens = np.arange(25, dtype=np.uint16)
    seen = []
    for rows, weights in document_batches(tokens, offsets, 4, batch_size):
        assert (rows.shape, weights.shape) == ((batch_size, 5), (batch_size, 4))
        for row, weight in zip(rows, weights, strict=True):
            seen += [(row[j], row[j + 1]) for j in range(4) if weight[j]]
    expected = [(i, i + 1) for i in range(24) if i + 1 not in offsets]  # never across a border
    assert sorted(seen) == expected
