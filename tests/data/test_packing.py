"""Packed rows: whole documents, nothing lost, nothing twice, hardly any padding."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytale_mlx.data.batches import Batches, Shuffled
from tinytale_mlx.data.packing import PackedRows, pack
from tinytale_mlx.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

DOCUMENTS = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def offsets_of(lengths: list[int]) -> np.ndarray:
    return np.cumsum([0, *lengths])


def best_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """How many rows the textbook method takes."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, free in enumerate(room) if free >= length]
        if fitting:
            room[min(fitting, key=room.__getitem__)] -= length
        else:
            room.append(capacity - length)
    return len(room)


# ---------------------------------------------------------------------- the plan
@given(lengths=st.lists(st.integers(1, 30), max_size=200), capacity=st.integers(30, 100))
@settings(max_examples=150, deadline=None)
def test_no_row_overflows_and_none_is_empty(lengths: list[int], capacity: int) -> None:
    row, count = pack(np.array(lengths, np.int32), capacity)
    used = np.bincount(row, weights=lengths, minlength=count)
    assert len(row) == len(lengths)
    assert len(used) == count
    assert ((used > 0) & (used <= capacity)).all()


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=7))
@settings(max_examples=150, deadline=None)
def test_the_first_row_is_the_fullest_that_there_is(lengths: list[int]) -> None:
    """Of all rows with the longest piece in it, by trying every subset of the others."""
    row, _ = pack(np.array(lengths), 20)
    longest, *others = sorted(lengths, reverse=True)
    sums = [longest]
    for length in others:
        sums += [total + length for total in sums]
    assert sum(length for length, of in zip(lengths, row, strict=True) if of == 0) == max(
        total for total in sums if total <= 20
    )


def test_small_cases() -> None:
    assert pack(np.array([], np.int32), 8)[1] == 0
    assert pack(np.array([8, 8, 8]), 8)[1] == 3
    assert pack(np.array([1] * 17), 8)[1] == 3
    assert pack(np.array([5, 4, 3, 2, 2]), 8)[1] == 2  # 5 + 3 and 4 + 2 + 2
    row, count = pack(np.array([2, 1, 1, 2]), 2)
    assert count == 3
    assert row[1] == row[2]


@pytest.mark.parametrize(("mean", "capacity"), [(20, 65), (35, 129), (35, 257), (20, 257)])
def test_it_beats_best_fit_decreasing(mean: int, capacity: int) -> None:
    lengths = np.random.default_rng(0).normal(mean, mean / 5, 1500).astype(int).clip(2, capacity)
    padding, textbook = (
        count * capacity - lengths.sum()
        for count in (pack(lengths, capacity)[1], best_fit_decreasing(lengths.tolist(), capacity))
    )
    assert 0 <= padding < textbook / 2


def test_the_plan_is_the_same_every_time() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 5000)
    one, two = pack(lengths, 100), pack(lengths.copy(), 100)
    assert one[1] == two[1]
    np.testing.assert_array_equal(one[0], two[0])


# ---------------------------------------------------------------------- the rows
@given(lengths=DOCUMENTS, context=st.integers(1, 25), mask=st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_token_is_a_target_once(lengths: list[int], context: int, mask: bool) -> None:
    """Of an epoch, all but what begins a document; without the mask that too, except at the beginning of a row."""
    offsets = offsets_of(lengths)
    tokens = np.arange(1, offsets[-1] + 1)
    rows = PackedRows(tokens, offsets, context, mask)
    batch = rows.rows(0, np.arange(rows.count))
    targets = Counter(batch.tokens[:, 1:][batch.weights == 1].tolist())
    inside = {place + 1 for place in range(offsets[-1]) if place not in offsets}
    assert set(np.unique(batch.weights)) <= {0.0, 1.0}
    assert all(count == 1 for count in targets.values())
    begins = {begin + 1 for begin, length in zip(offsets, lengths, strict=False) if length >= 2}
    expected = inside if mask else inside | (begins - set(batch.tokens[:, 0].tolist()))
    assert set(targets) == expected


@given(lengths=DOCUMENTS, context=st.integers(1, 25))
@settings(max_examples=150, deadline=None)
def test_documents_are_whole_and_in_the_order_of_the_text(lengths: list[int], context: int) -> None:
    offsets = offsets_of(lengths)
    rows = PackedRows(np.arange(1, offsets[-1] + 1), offsets, context, mask=True)
    batch = rows.rows(0, np.arange(rows.count))
    assert batch.segments is not None
    found = []
    for row, segments in zip(batch.tokens, batch.segments, strict=True):
        pieces = [row[segments == segment].tolist() for segment in range(segments.max() + 1)]
        assert [token for piece in pieces for token in piece] == row.tolist()
        if pieces[-1][-1] == 0:  # padding, a segment of its own
            assert not any(pieces.pop())
        assert pieces == sorted(pieces)
        assert all(piece == list(range(piece[0], piece[-1] + 1)) for piece in pieces)
        found += [(piece[0] - 1, piece[-1]) for piece in pieces]
    whole = [(begin, begin + n) for begin, n in zip(offsets.tolist(), lengths, strict=False) if 2 <= n <= context + 1]
    assert set(whole) <= set(found)
    assert len(found) == len(set(found))


def only_row(lengths: list[int], context: int, mask: bool, number: int = 0) -> tuple[list[int], list[float]]:
    """Tokens and weights of a row; the tokens are 10, 11, 12, ..."""
    offsets = offsets_of(lengths)
    rows = PackedRows(np.arange(10, 10 + offsets[-1]), offsets, context, mask)
    batch = rows.rows(0, np.array([number]))
    return batch.tokens[0].tolist(), batch.weights[0].tolist()


def test_what_begins_a_document_is_predicted_without_the_mask_only() -> None:
    assert only_row([3, 2], 6, mask=True) == ([10, 11, 12, 13, 14, 0, 0], [1, 1, 0, 1, 0, 0])
    assert only_row([3, 2], 6, mask=False) == ([10, 11, 12, 13, 14, 0, 0], [1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("mask", [True, False])
def test_what_goes_on_with_a_document_is_not_predicted_from_another(mask: bool) -> None:
    """Nine tokens in rows of six: the second piece begins with the first one's last target."""
    assert only_row([2, 9], 5, mask) == ([12, 13, 14, 15, 16, 17], [1, 1, 1, 1, 1])
    assert only_row([2, 9], 5, mask, number=1) == ([10, 11, 17, 18, 19, 20], [1, 0, 1, 1, 1])


def test_padding_is_a_segment_of_its_own() -> None:
    batch = PackedRows(np.arange(5), offsets_of([3, 2]), 6, mask=True).rows(0, np.array([0]))
    assert batch.segments is not None
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 2, 2]]


def test_what_a_row_costs_is_what_it_holds() -> None:
    rows = PackedRows(np.arange(30), offsets_of([6, 6, 6, 6, 6]), 11)
    assert rows.count == 3
    assert rows.filled == 30 / 36


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize("lengths", [[1], [0, 0], [1, 1, 0, 1], []], ids=str)
def test_nothing_to_predict(lengths: list[int]) -> None:
    rows = PackedRows(np.zeros(sum(lengths), np.uint16), offsets_of(lengths), 4)
    assert rows.count == 0
    assert rows.filled == 0
    with pytest.raises(UserError, match="fills 0 rows of 4 tokens"):
        Batches(Shuffled(rows, 0), 1)


def test_a_context_of_one() -> None:
    """Every row is a pair."""
    rows = PackedRows(np.arange(8), offsets_of([2, 1, 3, 2]), 1)
    assert sorted(rows.rows(0, np.arange(rows.count)).tokens.tolist()) == [[0, 1], [3, 4], [4, 5], [6, 7]]


# ---------------------------------------------------------------------- real data
def texts(name: str) -> list[str]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    return ["\n".join(row.values()) for row in json.loads(path.read_text("utf-8"))]


@pytest.mark.parametrize("name", ["wikisql/train.jsonl", "instruct/instruction-data.json"])
def test_real_documents_leave_less_than_four_percent_padding(name: str) -> None:
    """Of any eight, padded to the longest of them, a quarter is. Five letters, or a sign, are about a token."""
    lengths = np.array([len(re.findall(r"\w{1,5}|[^\w\s]", text)) + 2 for text in texts(name)])
    shuffled = np.random.default_rng(0).permutation(lengths)
    eights = [shuffled[i : i + 8] for i in range(0, len(shuffled), 8)]
    assert lengths.sum() / sum(len(eight) * eight.max() for eight in eights) < 0.78
    for context in (256, 512, 1024):
        rows = PackedRows(np.zeros(lengths.sum(), np.uint16), offsets_of(lengths.tolist()), context)
        assert rows.filled > 0.96, context


# ---------------------------------------------------------------------- fine-tuning
@pytest.mark.parametrize("mask", [False, True])
@given(lengths=DOCUMENTS.filter(lambda lengths: max(lengths) > 1), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_token_keeps_its_own_weight(mask: bool, lengths: list[int], seed: int) -> None:
    """Every trained token is a target once, with its weight, unless nothing predicts it."""
    offsets, total = offsets_of(lengths), sum(lengths)
    weights = np.random.default_rng(seed).integers(0, 3, total)
    tokens = np.arange(1, total + 1)  # each says where it came from
    rows = PackedRows(tokens, offsets, 20, mask=mask, weights=weights)
    plain = PackedRows(tokens, offsets, 20, mask=mask)
    everything = np.arange(rows.count)
    ours, theirs = rows.rows(0, everything), plain.rows(0, everything)
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    own = np.append(0, weights)[ours.tokens[:, 1:]]
    np.testing.assert_array_equal(ours.weights, theirs.weights * own)
