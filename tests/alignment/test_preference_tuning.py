"""Tuning on preferences, without a reward model: where it starts, where it ends, and what the reference is."""

import json
import math
from contextlib import nullcontext

import mlx.core as mx
import numpy as np
import pytest
from enumerable import BEGIN, LENGTH, SEQUENCES, Table, divergence, fixed, probabilities
from pydantic import ValidationError

from tinytale_mlx.alignment.measured import MeasuredStep, adam
from tinytale_mlx.alignment.pairs import UNRANKED, Comparisons, Labels
from tinytale_mlx.alignment.preference_tuning import (
    KTOStep,
    LabelledRows,
    Pairs,
    all_pairs,
    kto_loss,
    labelled_rows,
    pair_losses,
    preference_loss,
    with_reference,
)
from tinytale_mlx.alignment.scoring import Rows, lay_out, response_logps
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe.align import PreferenceRecipe
from tinytale_mlx.recipe.tuning import TuneRecipe
from tinytale_mlx.tuning.adapters import attach, new_adapter

KEY = mx.random.key(0)
FIRST = {"dpo": math.log(2), "hinge": 1.0, "ipo": 1 / (4 * 0.1**2), "kto": 0.5}


def pairs_of(sequences: list[tuple[list[int], list[int]]], reference) -> Pairs:
    flat = [sequence for pair in sequences for sequence in pair]
    rows = lay_out([[BEGIN]] * len(flat), flat, 1, LENGTH)
    shaped = Rows(*(array.reshape(-1, 2, *array.shape[1:]) for array in rows))
    return Pairs(*shaped, with_reference(shaped, fixed(reference)))


def mean_loss(loss, model, arrays) -> tuple[float, dict[str, float]]:
    total, count, figures = loss(model, [mx.array(array) for array in arrays])
    return total.item() / count.item(), {name: value.item() / count.item() for name, value in figures.items()}


@pytest.mark.parametrize(("method", "smoothing"), [("dpo", 0.0), ("dpo", 0.2), ("hinge", 0.0), ("ipo", 0.0)])
def test_the_first_loss_is_known(method, smoothing):
    data = pairs_of([(SEQUENCES[3], SEQUENCES[40]), (SEQUENCES[70], SEQUENCES[0])], Table())
    settings = PreferenceRecipe(method=method, smoothing=smoothing, beta=0.1)
    found, figures = mean_loss(preference_loss(settings), Table(), data)
    assert found == pytest.approx(FIRST[method], abs=1e-6)
    assert (figures["accuracy"], figures["margin"]) == (0.5, 0)


def test_the_implicit_reward_of_dpo_is_the_true_one():
    """Pairs as often as Bradley and Terry say, exactly: where worth is 1, 2, 3, that is in such proportions."""
    worth = [1, 2, 3, 1, 4, 2]
    some = [SEQUENCES[i] for i in (0, 2, 9, 30, 50, 84)]
    listed = []
    for i in range(len(some)):
        for j in range(i):
            listed += [(some[i], some[j])] * worth[i] + [(some[j], some[i])] * worth[j]
    model, reference = Table(), Table()
    step = MeasuredStep(model, preference_loss(PreferenceRecipe(beta=0.5)), adam())
    data = pairs_of(listed, reference)
    for number in range(250):
        step([tuple(data)], 0.1 * (1 - number / 250), KEY)
    chosen = [SEQUENCES.index(sequence) for sequence in some]
    implicit = 0.5 * (np.log(probabilities(model)) - np.log(probabilities(reference)))[chosen]
    error = implicit - np.log(worth)
    assert np.ptp(error) < 0.01
    assert divergence(probabilities(model), probabilities(reference)) > 0.05


def test_ranked_responses_become_pairs():
    rows = lay_out([[BEGIN]] * 6, [[1, 0], [2, 0], [3, 0], [4, 0], [1, 1, 0], []], 1, LENGTH)
    shaped = [array.reshape(2, 3, *array.shape[1:]) for array in rows]
    ranks = np.array([[1, 3, 2], [1, 2, UNRANKED]], np.float32)
    found = all_pairs(Comparisons(*shaped, ranks, np.zeros(2, np.float32)))
    assert found.ids[:, :, 1].tolist() == [[1, 2], [1, 3], [3, 2], [4, 1]]
    assert found.mask.shape == (4, 2, LENGTH)
    assert found.starts.tolist() == [[1, 1]] * 4


@pytest.mark.parametrize("method", ["dpo", "ipo", "hinge", "orpo", "simpo"])
def test_every_method_prefers_what_is_preferred(method):
    model, data = Table(), pairs_of([(SEQUENCES[9], SEQUENCES[60]), (SEQUENCES[80], SEQUENCES[1])], Table())
    loss = preference_loss(PreferenceRecipe(method=method, beta=0.5))
    step = MeasuredStep(model, loss, adam())
    before, first = mean_loss(loss, model, data)
    for _ in range(20):
        step([tuple(data)], 0.05, KEY)
    after, figures = mean_loss(loss, model, data)
    assert after < before
    assert figures["accuracy"] == 1
    assert figures["margin"] > first["margin"]


def test_swapping_a_pair_swaps_its_figures():
    listed, model = [(SEQUENCES[9], SEQUENCES[60])], Table(seed=4)
    loss = preference_loss(PreferenceRecipe())
    _, one = mean_loss(loss, model, pairs_of(listed, Table()))
    _, other = mean_loss(loss, model, pairs_of([pair[::-1] for pair in listed], Table()))
    assert other["margin"] == pytest.approx(-one["margin"], abs=1e-6)
    assert other["accuracy"] == 1 - one["accuracy"]
    assert other["chosen_reward"] == pytest.approx(one["rejected_reward"], abs=1e-6)


def test_published_values():
    """Known from torchtune's tests."""
    logps = mx.array([[-0.5, -0.1], [-10.0, -30.0], [-1.0, -21.0]])
    reference = mx.array([[-0.5, -0.1], [-10.1, -20.1], [-0.1, -20.1 + 20]])
    found = pair_losses(PreferenceRecipe(beta=0.1), logps, reference, mx.ones((3, 2)))
    np.testing.assert_allclose(found, [0.6931, 0.3133, 0.1269], atol=1e-4)


def test_lengths_divide_where_a_method_says_so():
    """IPO, SimPO, ORPO and the added loss of the chosen response are per token; DPO is not."""
    logps, reference, lengths = mx.array([[-6.0, -4.0]]), mx.array([[-9.0, -3.0]]), mx.array([[3.0, 2.0]])
    one = lambda **settings: pair_losses(PreferenceRecipe(**settings), logps, reference, lengths).item()  # noqa: E731
    assert one(beta=0.1) == pytest.approx(math.log1p(math.exp(-0.1 * (3 + 1))), abs=1e-5)
    assert one(method="ipo", beta=0.5) == pytest.approx((1 + 0.5 - 1) ** 2, abs=1e-5)
    assert one(beta=0.1, nll=0.5) == pytest.approx(one(beta=0.1) + 0.5 * 2, abs=1e-5)
    assert one(method="simpo", beta=2.0, margin=0.5) == pytest.approx(math.log1p(math.exp(0.5)), abs=1e-5)
    assert one(method="orpo", beta=0.1) == pytest.approx(2 + 0.1 * math.log(2), abs=1e-5)


# ---------------------------------------------------------------------- the reference
def test_an_adapter_that_is_off_is_the_reference(tiny):
    model, copy = Transformer(tiny(), seed=1), Transformer(tiny(), seed=1)
    tuned = attach(model, new_adapter(model, TuneRecipe(rank=2), KEY))
    rows = lay_out([[1, 2], [3], [4], [5, 6]], [[5, 0], [6, 7, 0], [8, 0], [9, 9, 9]], 2, 3)
    shaped = Rows(*(array.reshape(2, 2, *array.shape[1:]) for array in rows))
    kept = with_reference(shaped, lambda: nullcontext(copy), 3)
    np.testing.assert_array_equal(with_reference(shaped, tuned.disabled, 3), kept)
    data = Pairs(*shaped, kept)
    loss = preference_loss(PreferenceRecipe())
    assert mean_loss(loss, tuned.model, data)[0] == pytest.approx(math.log(2), abs=1e-6)
    step = MeasuredStep(tuned.model, loss, adam())
    for _ in range(3):
        step([tuple(data)], 0.01, KEY)
    assert step.measured["margin"] > 0
    np.testing.assert_array_equal(with_reference(shaped, tuned.disabled, 3), kept)
    summed = np.array(response_logps(copy, Rows(*map(mx.array, rows)))).sum(axis=1)
    np.testing.assert_allclose(kept.reshape(-1), summed, atol=1e-5)


# ---------------------------------------------------------------------- KTO
def labels() -> Labels:
    chosen = [SEQUENCES[i] for i in (3, 20, 40, 84)]
    return Labels(*lay_out([[BEGIN]] * 4, chosen, 1, LENGTH), np.array([True, False, True, False]))


def test_kto_begins_at_a_half_and_parts_good_from_bad():
    model, reference = Table(), Table()
    data = labelled_rows(labels(), fixed(reference))
    loss = kto_loss(PreferenceRecipe(method="kto", beta=0.5))
    first, _ = mean_loss(loss, model, [*data, np.zeros(4, np.float32)])
    assert first == pytest.approx(FIRST["kto"], abs=1e-6)
    step = KTOStep(MeasuredStep(model, loss, adam()), fixed(reference))
    for _ in range(30):
        result = step([tuple(data)], 0.05, KEY)
    assert result.nats / result.tokens < first - 0.05
    assert step.step.measured["desirable_reward"] > 0 > step.step.measured["undesirable_reward"]


def test_the_baseline_of_kto_is_that_of_the_whole_batch():
    """However it is cut into micro-batches: the mean of log π/π_ref of everybody's neighbour's response."""
    found = []
    ratios = np.log(probabilities(Table()) / probabilities(Table(seed=5)))[[3, 20, 40, 84]]
    for cuts in ([], [2], [1, 2, 3]):
        model = Table()
        step = KTOStep(MeasuredStep(model, kto_loss(PreferenceRecipe(method="kto"))), fixed(Table(seed=5)))
        data = labelled_rows(labels(), fixed(Table(seed=5)))
        pieces = zip(*(np.split(array, cuts) for array in data), strict=True)
        step([LabelledRows(*piece) for piece in pieces], 0.01, KEY)
        found.append((step.baseline, np.array(model.table)))
    assert ratios.mean() > 0.01
    assert found[0][0] == pytest.approx(ratios.mean(), abs=1e-5)
    for baseline, table in found[1:]:
        assert baseline == pytest.approx(found[0][0], abs=1e-5)
        np.testing.assert_allclose(table, found[0][1], atol=1e-5)


def test_the_baseline_of_kto_is_of_responses_to_other_prompts(tiny):
    model, reference = Transformer(tiny(), seed=4), Transformer(tiny(), seed=3)
    prompts, said = [[1, 2], [3], [9]], [[5, 0], [6, 7, 0], [8, 0]]
    other = Rows(*map(mx.array, lay_out(prompts, [*said[1:], said[0]], 2, 3)))
    ratios = np.array(response_logps(model, other) - response_logps(reference, other)).sum(axis=1)
    data = labelled_rows(Labels(*lay_out(prompts, said, 2, 3), np.array([True, False, True])), fixed(reference))
    step = KTOStep(MeasuredStep(model, kto_loss(PreferenceRecipe(method="kto"))), fixed(reference))
    step([data], 0.0, KEY)
    assert ratios.mean() > 0.01
    assert step.baseline == pytest.approx(ratios.mean(), abs=1e-5)


# ---------------------------------------------------------------------- settings
def test_what_means_nothing_to_a_method_is_refused():
    with pytest.raises(ValidationError, match="goes with the method dpo"):
        PreferenceRecipe(method="ipo", smoothing=0.1)
    with pytest.raises(ValidationError, match="means nothing to the method orpo"):
        PreferenceRecipe(method="orpo", nll=1.0)
    with pytest.raises(ValidationError, match="extra"):
        PreferenceRecipe(**json.loads('{"betta": 1}'))
