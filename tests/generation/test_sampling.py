"""Which tokens may be drawn, and how often."""

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.generation.sampling import Sampler, keep_min_p, keep_top_k, keep_top_p, keep_typical
from tinytale_mlx.recipe import GenerateRecipe

PLAIN = GenerateRecipe(temperature=1.0, top_p=1.0)


def draw(logits: mx.array, seed: int = 0, **settings: Any) -> np.ndarray:
    """One token for each row, each with a key of its own."""
    rows = logits.shape[0]
    sampler = Sampler(PLAIN.model_copy(update=settings), rows)
    return np.array(sampler(logits, mx.random.split(mx.random.key(seed), rows))[0])


def kept(logits: mx.array) -> list[list[int]]:
    """The tokens of each row that are left in."""
    return [np.flatnonzero(row).tolist() for row in np.isfinite(np.array(logits))]


def log(*probabilities: float) -> mx.array:
    with np.errstate(divide="ignore"):
        return mx.array(np.log(np.array([probabilities], np.float32)))


# ---------------------------------------------------------------------- greedy
@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 0.5)])
def test_temperature_zero_takes_the_likeliest(batch: int, top_k: int, top_p: float, dice: np.random.Generator):
    logits = dice.normal(size=(batch, 50)).astype(np.float32)
    for seed in range(3):
        chosen = draw(mx.array(logits), seed, temperature=0.0, top_k=top_k, top_p=top_p)
        assert chosen.tolist() == logits.argmax(-1).tolist()


def test_temperature_zero_with_negative_and_masked_logits():
    logits = mx.array([[-5.0, -3.0, -math.inf], [-math.inf, -1e9, -math.inf], [2.0, 2.0, 1.0]])
    assert draw(logits, temperature=0.0).tolist() == [1, 1, 0]


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32], ids=str)
def test_a_low_temperature_is_nearly_greedy(dtype: mx.Dtype, dice: np.random.Generator):
    logits = np.repeat(dice.permutation(20)[None].astype(np.float32), 500, axis=0)
    chosen = draw(mx.array(logits).astype(dtype), temperature=1e-4)
    assert (chosen == logits[0].argmax()).all()


# ---------------------------------------------------------------------- the filters
@pytest.mark.parametrize(
    ("k", "expected"), [(1, [[1], [0]]), (2, [[1, 3], [0, 2]]), (3, [[0, 1, 3], [0, 1, 2, 3]]), (4, [[0, 1, 2, 3]] * 2)]
)
def test_top_k(k: int, expected: list[list[int]]):
    """In the second row two are equal at the border of three: both stay."""
    logits = mx.array([[1.0, 4.0, -1.0, 3.0], [5.0, 0.0, 2.0, 0.0]])
    filtered = keep_top_k(logits, k)
    assert kept(filtered) == expected
    assert all(np.array(filtered)[row, token] == np.array(logits)[row, token]
               for row in range(2) for token in expected[row])  # fmt: skip


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        *((0.01, [2]), (0.49, [2]), (0.51, [0, 2]), (0.74, [0, 2]), (0.76, [0, 2, 4])),
        *((0.91, [0, 2, 3, 4]), (0.99, [0, 1, 2, 3, 4])),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, expected: list[int]):
    assert kept(keep_top_p(log(0.25, 0.05, 0.5, 0.05 + 1e-4, 0.15 - 1e-4), p)) == [expected]


def test_top_p_takes_no_more_than_it_needs():
    """Four equal tokens: exactly half of them make one half."""
    assert [len(kept(keep_top_p(log(0.25, 0.25, 0.25, 0.25), p))[0]) for p in (0.25, 0.5, 0.75)] == [1, 2, 3]


def test_top_p_on_any_distribution(dice: np.random.Generator):
    for temperature in (0.1, 1.0, 5.0):
        logits = (dice.normal(size=(40, 300)) / temperature).astype(np.float32)
        p = float(dice.uniform(0.05, 0.95))
        probabilities = np.exp(logits.astype(np.float64))
        probabilities /= probabilities.sum(-1, keepdims=True)
        for row, tokens in enumerate(kept(keep_top_p(mx.array(logits), p))):
            inside = np.sort(probabilities[row, tokens])
            assert inside.sum() >= p - 1e-5
            assert inside[1:].sum() < p + 1e-5  # without its least likely, it does not reach p
            assert inside[0] >= np.delete(probabilities[row], tokens).max(initial=0)


def test_top_p_after_top_k_never_lets_a_token_back_in():
    logits = keep_top_k(mx.array([[3.0, 2.9, 2.8, -50.0, -60.0]]), 2)
    assert kept(keep_top_p(logits, 0.999999)) == [[0, 1]]


def test_min_p_is_a_share_of_the_likeliest():
    logits = log(0.4, 0.3, 0.2, 0.1)
    assert [len(kept(keep_min_p(logits, share))[0]) for share in (0.01, 0.26, 0.49, 0.51, 0.76, 1.0)] == [
        4,
        3,
        3,
        2,
        1,
        1,
    ]


def test_typical_is_nearest_to_the_entropy():
    """Entropy 1.21 nats: 0.25 is nearest (surprise 1.39), then 0.5 (0.69), then 0.15 (1.90), then 0.1 (2.30)."""
    logits = log(0.5, 0.25, 0.15, 0.1)
    assert [kept(keep_typical(logits, p))[0] for p in (0.2, 0.3, 0.8, 0.95)] == [[1], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    flat = log(0.3, *[0.05] * 14)  # entropy 2.46: the likeliest, with 1.20, is farther off than all others, with 3.00
    assert 0 not in kept(keep_typical(flat, 0.68))[0]
    assert 0 in kept(keep_typical(flat, 0.72))[0]


def test_typical_after_top_k_never_lets_a_token_back_in():
    logits = keep_top_k(log(0.5, 0.25, 0.15, 0.1), 2)
    assert kept(keep_typical(logits, 0.9999)) == [[0, 1]]


@pytest.mark.parametrize("keep", [keep_top_p, keep_min_p, keep_typical])
def test_a_filter_keeps_something_of_every_row(keep: Any, dice: np.random.Generator):
    logits = mx.array((dice.normal(size=(50, 30)) * 20).astype(np.float32))
    for share in (1e-9, 0.5, 1.0):
        assert all(kept(keep(logits, share)))


# ---------------------------------------------------------------------- how often
def expected_distribution(logits: np.ndarray, **settings: Any) -> np.ndarray:
    """Step by step in float64, for one row without ties; in the order of the recipe."""
    scaled = logits.astype(np.float64) / settings.get("temperature", 1.0)
    scaled[np.argsort(-scaled)[settings.get("top_k", 0) or len(scaled) :]] = -np.inf

    def probabilities() -> np.ndarray:
        p = np.exp(scaled - scaled.max())
        return p / p.sum()

    def smallest_set(rank: np.ndarray, mass: float) -> None:
        order = np.argsort(rank)
        count = 1 + np.searchsorted(np.cumsum(probabilities()[order]), mass)
        scaled[order[count:]] = -np.inf

    if "top_p" in settings:
        smallest_set(-scaled, settings["top_p"])
    scaled[probabilities() < settings.get("min_p", 0.0) * probabilities().max()] = -np.inf
    if "typical_p" in settings:
        p = probabilities()
        surprise = np.where(p > 0, -np.log(np.maximum(p, 1e-300)), np.inf)
        smallest_set(np.abs(surprise - (p * np.where(p > 0, surprise, 0)).sum()), settings["typical_p"])
    return probabilities()


LOGITS = np.array([1.2, -0.3, 2.0, 0.1, -1.5, 0.8, -4.0], np.float32)
COUNT = 20_000


def chi_square(chosen: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's, over the possible tokens; the impossible must not come at all."""
    observed = np.bincount(chosen, minlength=len(expected))
    assert (observed[expected == 0] == 0).all()
    mean = COUNT * expected[expected > 0]
    return float(((observed[expected > 0] - mean) ** 2 / mean).sum())


@pytest.mark.parametrize(
    "settings",
    [
        *({"temperature": t} for t in (1.0, 0.5, 2.0)),
        *({"top_k": k} for k in (3, 1, 100)),
        *({"top_p": 0.8}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}),
        *({"temperature": 1.5, "top_k": 2, "top_p": 0.95},),
        *({"min_p": 0.2}, {"min_p": 0.04, "temperature": 2.0}, {"min_p": 0.3, "top_p": 0.9}),
        *({"typical_p": 0.3}, {"typical_p": 0.7, "temperature": 1.5}, {"typical_p": 0.8, "top_k": 4}),
        {"temperature": 1.3, "top_k": 6, "top_p": 0.97, "min_p": 0.05, "typical_p": 0.9},
    ],
    ids=str,
)  # fmt: skip
def test_tokens_come_as_often_as_they_should(settings: dict[str, Any]):
    """Pearson's chi-square over 20,000 draws; 33.7 is the 99.999 % point for six degrees of freedom."""
    rows = mx.broadcast_to(mx.array(LOGITS), (COUNT, len(LOGITS)))
    expected = expected_distribution(LOGITS, **settings)
    assert chi_square(draw(rows, 7, **settings), expected) < 33.7
    told = np.exp(np.array(Sampler(PLAIN.model_copy(update=settings)).distribution(rows[:1])))[0]
    assert told == pytest.approx(expected, abs=1e-6)


def test_the_chi_square_would_tell():
    """Of a temperature that is one tenth off it is far beyond the limit."""
    rows = mx.broadcast_to(mx.array(LOGITS), (COUNT, len(LOGITS)))
    assert chi_square(draw(rows, 7, temperature=1.1), expected_distribution(LOGITS)) > 60


def test_greedy_is_a_distribution_too():
    sampler = Sampler(PLAIN.model_copy(update={"temperature": 0.0, "top_k": 3}))
    assert np.exp(np.array(sampler.distribution(mx.array(LOGITS)[None])))[0].tolist() == [0, 0, 1, 0, 0, 0, 0]


# ---------------------------------------------------------------------- keys, rows, vocabulary
def test_the_key_decides(dice: np.random.Generator):
    logits = mx.array(dice.normal(size=(64, 100)).astype(np.float32))
    one = draw(logits, 1)
    mx.random.seed(5)
    assert np.array_equal(one, draw(logits, 1))
    assert not np.array_equal(one, draw(logits, 2))


def test_a_row_does_not_depend_on_its_neighbours(dice: np.random.Generator):
    logits = mx.array(dice.normal(size=(8, 50)).astype(np.float32))
    keys = mx.random.split(mx.random.key(3), 8)
    settings = PLAIN.model_copy(update={"top_k": 20, "top_p": 0.9})
    together = np.array(Sampler(settings, 8)(logits, keys)[0])
    alone = [Sampler(settings, 1)(logits[i : i + 1], keys[i : i + 1])[0].item() for i in range(8)]
    assert together.tolist() == alone


def test_the_same_key_draws_the_same_for_equal_rows():
    rows = mx.broadcast_to(mx.array(LOGITS), (6, len(LOGITS)))
    keys = mx.broadcast_to(mx.random.key(2), (6, 2))
    assert len(set(np.array(Sampler(PLAIN, 6)(rows, keys)[0]).tolist())) == 1


def test_log_probabilities_are_the_model_s_own():
    """Whatever the settings; over the ids that the tokenizer has."""
    settings = PLAIN.model_copy(update={"temperature": 0.3, "top_k": 2, "logit_bias": {0: 5.0}})
    _, logprobs = Sampler(settings, vocabulary=5)(mx.array(LOGITS)[None], mx.random.key(0)[None])
    expected = LOGITS[:5] - np.log(np.exp(LOGITS[:5]).sum())
    assert np.array(logprobs)[0] == pytest.approx(expected, abs=1e-6)


def test_nothing_beyond_the_vocabulary():
    rows = mx.broadcast_to(mx.array([0.0, 0.0, 9.0, 9.0]), (200, 4))
    for temperature in (0.0, 1.0):
        sampler = Sampler(PLAIN.model_copy(update={"temperature": temperature, "logit_bias": {3: 9.0}}), 200, 2)
        assert np.array(sampler(rows, mx.random.split(mx.random.key(0), 200))[0]).max() < 2


# ---------------------------------------------------------------------- bias and lengths
def test_bias():
    logits = mx.array(LOGITS)[None]
    assert draw(logits, temperature=0.0, logit_bias={6: 100.0}).tolist() == [6]
    assert draw(logits, temperature=0.0, logit_bias={2: -100.0}).tolist() == [0]
    rows = mx.broadcast_to(mx.array(LOGITS), (COUNT, len(LOGITS)))
    biased = LOGITS + np.array([0, 1.5, -1, 0, 0, 0, 0], np.float32)
    assert chi_square(draw(rows, 1, logit_bias={1: 1.5, 2: -1.0}), expected_distribution(biased)) < 33.7


def test_no_end_before_its_time():
    """A model that only wants to end; another token is drawn until it may, in every row."""
    settings = PLAIN.model_copy(update={"min_new_tokens": 3, "temperature": 0.0})
    sampler = Sampler(settings, 2, None, {1, 3})
    logits = mx.array([[0.0, 9.0, 1.0, 8.0], [2.0, 8.0, 1.0, 9.0]])
    keys = mx.random.split(mx.random.key(0), 2)
    drawn = [np.array(sampler(logits, keys)[0]).tolist() for _ in range(5)]
    assert drawn == [[2, 0]] * 3 + [[1, 3]] * 2
