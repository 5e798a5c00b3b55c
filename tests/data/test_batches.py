"""Batches are a pure function of (seed, step), and every row comes once per epoch."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytale_mlx.data.batches import (
    Batches,
    Shuffled,
    document_batches,
    make_rows,
    validation_batches,
)
from tinytale_mlx.data.rows import DocumentRows, Rows, WindowRows, document_pieces, document_starts
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import DataRecipe

FIRST = [570, 490, 920, 120, 740, 640, 670, 80]
ACROSS = [730, 230, 900, 380, 871, 211, 421, 331]
OFFSETS = np.array([0, 5, 6, 6, 16, 25])
"""Documents of 5, 1, 0, 10 and 9 tokens."""


def windows(tokens: np.ndarray, context: int, batch_size: int, seed: int) -> Batches:
    return Batches(Shuffled(WindowRows(tokens, context, seed), seed), batch_size)


def all_kinds(context: int = 4) -> dict[str, Rows]:
    """Every kind of rows over the 25 tokens 0, 1, 2, ... and `OFFSETS`."""
    tokens = np.arange(25, dtype=np.uint16)
    recipes = itertools.product(("windows", "documents", "packed"), (False, True))
    return {
        f"{kind}{'-mask' * mask}": make_rows(DataRecipe(rows=kind, document_mask=mask), tokens, OFFSETS, context, 3)
        for kind, mask in recipes
    }


KINDS = list(all_kinds())


# ---------------------------------------------------------------------- windows
def test_first_epoch_is_the_plain_windows_each_once() -> None:
    tokens = np.arange(1000, 1000 + 10 * 7 + 1, dtype=np.uint16)
    batches = [windows(tokens, 7, 5, seed=3).at(step) for step in range(2)]
    rows = sorted(map(tuple, np.concatenate([batch.tokens for batch in batches]).tolist()))
    assert rows == [tuple(range(1000 + 7 * w, 1000 + 7 * w + 8)) for w in range(10)]
    assert all((batch.weights == 1).all() and batch.segments is None for batch in batches)


@given(context=st.integers(1, 9), batch_size=st.integers(1, 6), extra=st.integers(0, 60), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_every_epoch_predicts_its_windows_once(context: int, batch_size: int, extra: int, seed: int) -> None:
    length = batch_size * context + 1 + extra
    batches = windows(np.arange(length, dtype=np.uint16), context, batch_size, seed)
    count = (length - 1) // context
    rows = np.concatenate([batches.at(step).tokens for step in range(-(-3 * count // batch_size))])
    for epoch in range(3):
        block = rows[epoch * count : (epoch + 1) * count]
        assert ((np.diff(block) % length) == 1).all()  # consecutive tokens, or over the end to the beginning
        inputs = block[:, :-1].ravel()
        assert len(set(inputs.tolist())) == count * context


def test_later_epochs_show_other_windows_and_leave_out_other_tokens() -> None:
    batches = windows(np.arange(10 * 16 + 9, dtype=np.uint16), 16, 10, seed=1)
    epochs = [batches.at(epoch).tokens[:, 1:] for epoch in range(20)]
    assert len({tuple(sorted(epoch[:, 0].tolist())) for epoch in epochs}) > 8
    assert set(np.concatenate(epochs).ravel().tolist()) == set(range(10 * 16 + 9))


def test_the_order_is_frozen() -> None:
    """A checkpoint of today must resume on the same batches tomorrow."""
    batches = windows(np.arange(1001, dtype=np.uint16), 10, 8, seed=42)
    assert batches.at(0).tokens[:, 0].tolist() == FIRST
    assert batches.at(12).tokens[:, 0].tolist() == ACROSS  # windows 96 to 99 of epoch 0, then 0 to 3 of epoch 1


def test_two_hundred_batches_are_frozen() -> None:
    """Six epochs of windows, four of documents, to the last byte, as they were when there were no other rows."""
    text = (np.arange(5003) * 2654435761 % 60013).astype(np.uint16)
    offsets = np.cumsum([0, *([5, 1, 40, 33, 34, 100, 65, 64] * 14)])
    for rows, expected in [
        (WindowRows(text, 32, 7), "82d781a2ac876689"),
        (DocumentRows(text, document_starts(offsets, 32), 32), "81880c3dea9aad0a"),
    ]:
        digest = hashlib.blake2b(digest_size=8)
        batches = Batches(Shuffled(rows, 7), 4)
        for step in range(200):
            tokens, weights, _ = batches.at(step)
            digest.update(tokens.tobytes() + weights.tobytes())
        assert digest.hexdigest() == expected


def test_seed_and_epoch_change_the_order() -> None:
    tokens = np.arange(801, dtype=np.uint16)
    orders = {
        tuple((windows(tokens, 1, 800, seed).at(epoch).tokens[:, 0]).tolist())
        for seed, epoch in itertools.product(range(4), range(4))
    }
    assert len(orders) == 16


# ---------------------------------------------------------------------- all kinds
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_types(kind: str) -> None:
    rows = all_kinds()[kind]
    for batch in (rows.rows(2, np.array([3, 0])), Batches(Shuffled(rows, 0), 2).at(9)):
        assert (batch.tokens.dtype, batch.tokens.shape) == (np.int32, (2, 5))
        assert (batch.weights.dtype, batch.weights.shape) == (np.float32, (2, 4))
        assert (batch.segments is not None) == kind.endswith("-mask")
        if batch.segments is not None:
            assert (batch.segments.dtype, batch.segments.shape) == (np.int32, (2, 5))
            assert (batch.segments[:, 0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_at_is_pure(kind: str) -> None:
    one, two = (Batches(Shuffled(all_kinds()[kind], 7), 4) for _ in range(2))
    straight = [one.at(step) for step in range(12)]
    for step in (10, 3, 11, 3, 0, 5):
        for got, expected in zip(two.at(step), straight[step], strict=True):
            np.testing.assert_array_equal(got, expected)
    one.at(0).tokens[:] = 0  # what is handed out belongs to the caller
    one.at(0).weights[:] = 0
    np.testing.assert_array_equal(one.at(0).tokens, straight[0].tokens)
    np.testing.assert_array_equal(one.at(0).weights, straight[0].weights)


@pytest.mark.parametrize("kind", KINDS)
def test_every_epoch_has_every_row_once(kind: str) -> None:
    rows = all_kinds()[kind]
    expected = [sorted(map(tuple, rows.rows(epoch, np.arange(rows.count)).tokens.tolist())) for epoch in range(3)]
    batches = Batches(Shuffled(rows, 1), 1)
    for epoch in range(3):
        steps = range(epoch * rows.count, (epoch + 1) * rows.count)
        assert sorted(tuple(batches.at(step).tokens[0].tolist()) for step in steps) == expected[epoch]


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_share_the_batch(kind: str) -> None:
    """Put together, the shares of 2 or 4 processes are the batch of one."""
    order = Shuffled(all_kinds()[kind], 5)
    for step, ranks in itertools.product(range(6), (2, 4)):
        parts = [Batches(order, 4, rank, ranks).at(step) for rank in range(ranks)]
        for whole, *shares in zip(Batches(order, 4).at(step), *parts, strict=True):
            if whole is not None:
                assert all(len(share) == 4 // ranks for share in shares)
                np.testing.assert_array_equal(np.concatenate(shares), whole)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("-mask")])
def test_no_target_is_the_first_token_of_a_document(kind: str) -> None:
    """Segments are documents: they change where one begins, and at the end of the text, and nowhere else."""
    rows = all_kinds()[kind]
    for epoch in range(3):
        tokens, weights, segments = rows.rows(epoch, np.arange(rows.count))
        assert segments is not None
        document = np.searchsorted(OFFSETS, tokens, side="right")
        follows = (np.diff(tokens) == 1) & (np.diff(document) == 0)
        real = np.ones_like(follows) if "packed" not in kind else weights > 0
        np.testing.assert_array_equal((np.diff(segments) == 0) & real, follows & real)
        np.testing.assert_array_equal(weights, follows)
        assert (np.diff(segments) >= 0).all()


def test_a_text_of_one_document_that_goes_round_the_end() -> None:
    """The second epoch's windows are shifted, so one of them holds the end and then the beginning."""
    rows = WindowRows(np.arange(9), 4, seed=0, offsets=np.array([0, 9]))
    epoch = next(epoch for epoch in range(1, 9) if rows.rows(epoch, np.array([0])).tokens[0, 0])
    tokens, weights, segments = rows.rows(epoch, np.arange(2))
    place = tokens[1].tolist().index(0)
    assert segments is not None
    assert segments[1].tolist() == [0] * place + [1] * (5 - place)
    assert weights[1].tolist() == [float(i + 1 != place) for i in range(4)]


# ---------------------------------------------------------------------- bad input
def test_a_negative_step_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no batch -1"):
        windows(np.arange(100), 4, 2, seed=0).at(-1)


def test_too_short_a_text_is_refused_and_the_least_one_is_not() -> None:
    with pytest.raises(UserError) as error:
        windows(np.zeros(812, np.uint16), 256, 8, seed=0)
    assert str(error.value) == (
        "the training text fills 3 rows of 256 tokens, and one batch of 8 x 256 needs 2,049; "
        "use more text, or a smaller train.batch_size or model.context"
    )
    for length in (0, 1, 2048):
        with pytest.raises(UserError):
            windows(np.zeros(length, np.uint16), 256, 8, seed=0)
    assert windows(np.zeros(2049, np.uint16), 256, 8, seed=0).order.count == 8


@pytest.mark.parametrize("offsets", [[0], [0, 0], [0, 0, 0]], ids=str)
@pytest.mark.parametrize("kind", ["windows", "documents", "packed"])
def test_no_text_at_all(kind: str, offsets: list[int]) -> None:
    rows = make_rows(DataRecipe(rows=kind), np.zeros(0, np.uint16), np.array(offsets), 4, 0)
    assert rows.count == 0
    with pytest.raises(UserError, match="fills 0 rows of 4 tokens"):
        Batches(Shuffled(rows, 0), 1)


def test_a_batch_that_ranks_cannot_share() -> None:
    order = Shuffled(all_kinds()["windows"], 0)
    with pytest.raises(UserError, match=r"train\.batch_size 4 can't be shared evenly by 3 processes"):
        Batches(order, 4, 0, 3)


def test_a_single_source_has_no_end_and_no_counts() -> None:
    batches = windows(np.arange(100), 4, 2, seed=0)
    batches.check(10**9)
    assert batches.shown(10) == {}


# ---------------------------------------------------------------------- documents
def test_document_rows_cover_every_document_from_its_beginning() -> None:
    starts = document_starts(OFFSETS, 4)
    assert starts.tolist() == [0, 5, 6, 10, 14, 16, 20]  # 4 predictions in one row, 9 in three, 8 in two
    rows = DocumentRows(np.arange(25, dtype=np.uint16), starts, 4)
    batches = Batches(Shuffled(rows, 0), 2)
    shown = np.concatenate([batches.at(step).tokens for step in range(7)])  # two epochs of seven rows
    assert sorted(shown[:7, 0].tolist()) == sorted(shown[7:, 0].tolist()) == starts.tolist()
    for row in shown:
        assert row.tolist() == [(row[0] + i) % 25 for i in range(5)]
    with pytest.raises(UserError, match="fills 7 rows of 4 tokens, and one batch of 8 x 4"):
        Batches(Shuffled(rows, 0), 8)


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=20), context=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_pieces_predict_every_token_but_the_first_once(lengths: list[int], context: int) -> None:
    offsets = np.cumsum([0, *lengths])
    begins, ends = document_pieces(offsets, context)
    targets = [place for begin, end in zip(begins, ends, strict=True) for place in range(begin + 1, end)]
    assert targets == [place for place in range(offsets[-1]) if place not in offsets]
    assert (ends - begins <= context + 1).all()
    assert set(offsets[:-1][np.diff(offsets) > 0]) <= set(begins.tolist())


# ---------------------------------------------------------------------- validation
@given(length=st.integers(2, 200), context=st.integers(1, 12), batch_size=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_validation_predicts_every_token_once_in_order(length: int, context: int, batch_size: int) -> None:
    text = np.random.default_rng(length).integers(1, 60_000, length).astype(np.uint16)
    before, targets = [], []
    for tokens, weights, segments in validation_batches(text, context, batch_size):
        assert segments is None
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


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_documents_are_scored_on_their_own_and_completely(batch_size: int) -> None:
    seen = []
    for rows, weights, _ in document_batches(np.arange(25, dtype=np.uint16), OFFSETS, 4, batch_size):
        assert (rows.shape, weights.shape) == ((batch_size, 5), (batch_size, 4))
        for row, weight in zip(rows, weights, strict=True):
            seen += [(row[j], row[j + 1]) for j in range(4) if weight[j]]
    expected = [(i, i + 1) for i in range(24) if i + 1 not in OFFSETS]  # never across a border
    assert sorted(seen) == expected
