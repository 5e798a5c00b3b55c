"""Rewards per token, GAE against its definition, and advantages within a group."""

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.alignment.advantages import gae, group_advantages, leave_one_out, token_rewards
from tinytale_mlx.alignment.kl import k1

RNG = np.random.default_rng(0)
LENGTHS = [5, 1, 3, 4]
MASK = (np.arange(5)[None] < np.array(LENGTHS)[:, None]).astype(np.float32)


def by_definition(rewards, values, mask, discount, smoothing):
    """A_t = Σ_l (γλ)^l δ_{t+l}, sum by sum."""
    result = np.zeros_like(rewards)
    for row, length in enumerate(int(m.sum()) for m in mask):
        following = np.append(values[row, 1:length], 0)
        delta = rewards[row, :length] + discount * following - values[row, :length]
        for t in range(length):
            result[row, t] = sum((discount * smoothing) ** i * d for i, d in enumerate(delta[t:]))
    return result


@pytest.mark.parametrize(("discount", "smoothing"), [(1, 0.95), (0.9, 0.95), (1, 1), (0.9, 0), (0.99, 0.5)])
def test_gae_is_its_definition(discount, smoothing):
    rewards, values = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5))
    found, returns = gae(mx.array(rewards), mx.array(values), mx.array(MASK), discount, smoothing)
    expected = by_definition(rewards * MASK, values * MASK, MASK, discount, smoothing)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(returns, expected + values * MASK, atol=1e-5)


def test_without_discount_and_smoothing_returns_are_what_is_still_to_come():
    rewards = mx.array([[1.0, 2, 4], [8, 16, 0]])
    mask = mx.array([[1.0, 1, 1], [1, 1, 0]])
    _, returns = gae(rewards, mx.array(RNG.normal(size=(2, 3))), mask, 1, 1)
    np.testing.assert_allclose(returns, [[7, 6, 4], [24, 16, 0]], atol=1e-5)


def test_without_smoothing_the_advantage_is_the_surprise():
    rewards, values = mx.array([[1.0, 2.0]]), mx.array([[10.0, 20.0]])
    advantages, _ = gae(rewards, values, mx.ones((1, 2)), 0.5, 0)
    assert advantages.tolist() == [[1 + 10 - 10, 2 - 20]]


def test_published_returns():
    """Known from torchtune's tests: one reward, one value, both at the end."""
    one = mx.array([[0.0, 0, 0, 1]])
    _, returns = gae(one, one, mx.ones((1, 4)), 0.9, 0.95)
    np.testing.assert_allclose(returns, [[0.9**3 * 0.95**2, 0.9**2 * 0.95, 0.9, 1]], atol=1e-6)


def test_what_stands_behind_the_mask_changes_nothing():
    rewards, values = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5))
    other_rewards, other_values = np.where(MASK > 0, rewards, np.nan), np.where(MASK > 0, values, 1e9)
    plain = gae(mx.array(rewards), mx.array(values), mx.array(MASK))
    wild = gae(mx.array(other_rewards), mx.array(other_values), mx.array(MASK))
    for first, second in zip(plain, wild, strict=True):
        np.testing.assert_array_equal(np.where(MASK > 0, first, 0), np.array(second))


def test_the_rewards_of_a_response_are_its_score_less_what_the_kl_costs():
    logps, reference = mx.array(RNG.normal(size=(4, 5))), mx.array(RNG.normal(size=(4, 5)))
    scores, mask = mx.array([1.0, -2.0, 3.0, 0.5]), mx.array(MASK)
    kl = k1(logps, reference)
    rewards = token_rewards(scores, kl, mask, 0.3)
    np.testing.assert_allclose(rewards.sum(axis=1), scores - 0.3 * (kl * mask).sum(axis=1), atol=1e-5)
    free = token_rewards(scores, kl, mask, 0.0)
    assert [row.index(value) for row, value in zip(free.tolist(), scores.tolist(), strict=True)] == [4, 0, 2, 3]


@pytest.mark.parametrize("scale", [False, True])
def test_a_group_is_compared_with_itself(scale):
    rewards = mx.array(RNG.normal(size=(3, 4)))
    advantages = group_advantages(rewards, scale)
    np.testing.assert_allclose(advantages.sum(axis=1), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(group_advantages(rewards + 7, scale), advantages, atol=1e-4)
    twice = group_advantages(2 * rewards, scale)
    np.testing.assert_allclose(twice, advantages if scale else 2 * advantages, atol=2e-3)


def test_scaled_advantages_have_the_deviation_one():
    advantages = np.array(group_advantages(mx.array(RNG.normal(size=(5, 8))), scale=True))
    np.testing.assert_allclose(advantages.std(axis=1, ddof=1), np.ones(5), atol=1e-3)


@pytest.mark.parametrize("scale", [False, True])
def test_equal_rewards_and_single_responses_teach_nothing(scale):
    assert group_advantages(mx.full((2, 4), 3.0), scale).tolist() == [[0] * 4] * 2
    assert group_advantages(mx.array([[3.0]]), scale).tolist() == [[0]]


def test_leave_one_out_is_what_it_says():
    rewards = RNG.normal(size=(2, 4))
    expected = [[r - np.delete(row, i).mean() for i, r in enumerate(row)] for row in rewards]
    np.testing.assert_allclose(leave_one_out(mx.array(rewards)), expected, atol=1e-6)
    with pytest.raises(ValueError, match="two responses or more"):
        leave_one_out(mx.array([[1.0]]))
