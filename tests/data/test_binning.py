"""Batches by length: every example once an epoch, few shapes, little padding, and never above the budget."""

import json
from collections import Counter
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytale_mlx.data.binning import BinnedBatches, _widths
from tinytale_mlx.data.rows import Batch
from tinytale_mlx.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

Example = tuple[tuple[int, ...], tuple[float, ...]]
"""Tokens, and the weights of all but the first."""


def examples_of(lengths: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens 1, 2, 3, ..., every third of which weighs 0 and every fifth 0.5; with their offsets."""
    offsets = np.cumsum([0, *lengths])
    tokens = np.arange(1, offsets[-1] + 1)
    return tokens, np.where(tokens % 3, np.where(tokens % 5, 1, 0.5), 0), offsets


def binned(lengths: list[int], budget: int = 64, seed: int = 3, **options: int) -> BinnedBatches:
    return BinnedBatches(*examples_of(lengths), budget, seed, **options)


def expected_examples(lengths: list[int]) -> Counter[Example]:
    tokens, weights, offsets = examples_of(lengths)
    parts = [slice(*pair) for pair in np.lib.stride_tricks.sliding_window_view(offsets, 2)]
    return Counter((tuple(tokens[part].tolist()), tuple(weights[part].tolist()[1:])) for part in parts)


def examples_in(batch: Batch) -> Counter[Example]:
    """The rows without their padding, which must be token 0 of weight 0; empty rows left out."""
    found: Counter[Example] = Counter()
    for tokens, weights in zip(batch.tokens, batch.weights, strict=True):
        length = int((tokens > 0).sum())
        assert (tokens[length:] == 0).all()
        assert (weights[max(length - 1, 0) :] == 0).all()
        found[tuple(tokens[:length].tolist()), tuple(weights[: length - 1].tolist()) if length else ()] += 1
    del found[(), ()]
    return found


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


@given(lengths=LENGTHS, budget=st.integers(60, 300), widths=st.integers(1, 32), ranks=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_every_example_is_shown_once_an_epoch(lengths: list[int], budget: int, widths: int, ranks: int) -> None:
    """With its own weights, in batches that the budget allows, by whatever number of processes."""
    parts = [binned(lengths, budget, widths=widths, rank=rank, ranks=ranks) for rank in range(ranks)]
    for epoch in range(2):
        found: Counter[Example] = Counter()
        for step in range(epoch * parts[0].count, (epoch + 1) * parts[0].count):
            batches = [part.at(step) for part in parts]
            assert len({batch.tokens.shape for batch in batches}) == 1
            rows, width = batches[0].tokens.shape
            assert (rows - 1) * ranks * (width - 1) < budget
            assert ranks > 1 or rows * (width - 1) <= budget
            for batch in batches:
                assert (batch.tokens.dtype, batch.weights.dtype, batch.segments) == (np.int32, np.float32, None)
                assert batch.weights.shape == (rows, width - 1)
                found += examples_in(batch)
        assert found == expected_examples(lengths)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_have_the_batch_of_one_together(ranks: int) -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 100).tolist()
    one = binned(lengths)
    for step in range(one.count):
        shares = [examples_in(binned(lengths, rank=rank, ranks=ranks).at(step)) for rank in range(ranks)]
        assert sum(shares, Counter()) == examples_in(one.at(step))


def test_at_is_pure() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 100).tolist()
    one, two = binned(lengths), binned(lengths)
    straight = [one.at(step) for step in range(2 * one.count)]
    for step in (2 * one.count - 1, 0, 5, 5, one.count):
        np.testing.assert_array_equal(two.at(step).tokens, straight[step].tokens)
        np.testing.assert_array_equal(two.at(step).weights, straight[step].weights)


def test_epochs_and_seeds_differ() -> None:
    """In the order of the batches and in who is with whom."""
    lengths = [9] * 64
    one = binned(lengths)
    epochs = [[examples_in(one.at(epoch * one.count + place)) for place in range(one.count)] for epoch in range(2)]
    epochs.append([examples_in(binned(lengths, seed=4).at(place)) for place in range(one.count)])
    together = [{frozenset(batch) for batch in epoch} for epoch in epochs]
    assert not together[0] & together[1]
    assert not together[0] & together[2]
    mixed = binned([3] * 50 + [30] * 50)
    widths = [tuple(mixed.at(epoch * mixed.count + i).tokens.shape[1] for i in range(mixed.count)) for epoch in (0, 1)]
    assert widths[0] != widths[1]
    assert sorted(widths[0]) == sorted(widths[1])


def test_shapes_are_few_and_full() -> None:
    """As many as were asked for, with as many rows as the budget allows; but for the last of the shortest."""
    lengths = np.random.default_rng(0).integers(2, 66, 3000).tolist()
    for widths in (1, 5, 16):
        batches = binned(lengths, budget=256, widths=widths)
        shapes = Counter(batches.at(step).weights.shape for step in range(batches.count))
        assert len({width for _, width in shapes}) == widths
        assert sum(count for (rows, width), count in shapes.items() if rows != 256 // width) <= 1


@given(lengths=st.lists(st.integers(2, 12), min_size=1, max_size=30), widths=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_no_other_widths_pad_less(lengths: list[int], widths: int) -> None:
    """By trying all; batches of one row each have no padding but that of their width."""
    needed = [length - 1 for length in lengths]
    least = min(
        sum(min(width for width in chosen if width >= length) for length in needed)
        for chosen in combinations_with_replacement(range(1, max(needed) + 1), widths)
        if max(chosen) == max(needed)
    )
    assert sum(_widths(np.array(needed), widths)[np.searchsorted(_widths(np.array(needed), widths), needed)]) == least


def test_long_examples_are_told_apart_less_finely() -> None:
    lengths = np.random.default_rng(0).integers(2, 20_000, 30_000)
    widths = _widths(lengths, 16)
    assert len(widths) == 16
    assert lengths.max() <= widths[-1] <= lengths.max() + 20
    assert binned([20_000, 17, 3000], budget=20_000).count == 2


def test_filled_is_the_share_of_predictions_that_are_real() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 500).tolist()
    batches = binned(lengths)
    cells = sum(batches.at(step).weights.size for step in range(batches.count))
    assert batches.filled == pytest.approx((sum(lengths) - 500) / cells)


def test_bad_input() -> None:
    with pytest.raises(UserError, match="no example to train on"):
        binned([])
    with pytest.raises(UserError, match="the longest example has 66 tokens, and a batch may have 64"):
        binned([3, 66])
    assert binned([3, 65]).count == 2
    with pytest.raises(ValueError, match="no batch -1"):
        binned([3]).at(-1)
    assert binned([1]).at(0).weights.tolist() == [[0.0]]


@pytest.mark.parametrize("name", ["wikisql/train.jsonl", "instruct/instruction-data.json"])
def test_real_examples_are_ninety_percent_of_their_batches(name: str) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    text = path.read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    lengths = [sum(map(len, row.values())) // 3 for row in rows]  # about as many tokens as that
    for budget in (1024, 2048):
        assert BinnedBatches(*examples_of(lengths), budget, 0).filled > 0.9, budget
