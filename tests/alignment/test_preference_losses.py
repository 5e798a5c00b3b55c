"""Losses of pairs: published values, the first value of every one, gradients, and the optimum that they share."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tinytale_mlx.alignment import preference_losses as losses

RNG = np.random.default_rng(0)
ZERO = mx.zeros(3)
LN2 = math.log(2)


def test_published_values():
    """Known from torchtune's tests: h of 0, 1 and 2."""
    chosen, rejected = mx.array([-0.5, -10.0, -1.0]), mx.array([-0.1, -30.0, -21.0])
    ref_chosen, ref_rejected = mx.array([-0.5, -10.1, -0.1]), mx.array([-0.1, -20.1, -0.1])
    h = 0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected))
    np.testing.assert_allclose(h, [0, 1, 2], atol=1e-5)
    np.testing.assert_allclose(losses.sigmoid(h), [0.6931, 0.3133, 0.1269], atol=1e-4)
    np.testing.assert_allclose(losses.hinge(h), [1, 0, 0], atol=1e-5)


def test_first_values():
    assert losses.sigmoid(ZERO).tolist() == pytest.approx([LN2] * 3, abs=1e-6)
    assert losses.sigmoid(ZERO, 0.1).tolist() == pytest.approx([LN2] * 3, abs=1e-6)
    assert losses.bradley_terry(ZERO, ZERO).tolist() == pytest.approx([LN2] * 3, abs=1e-6)
    assert losses.hinge(ZERO).tolist() == [1] * 3
    assert losses.ipo(ZERO, 0.1).tolist() == pytest.approx([25] * 3, rel=1e-6)
    assert losses.kto(ZERO, mx.array([True, False, True]), mx.array(0.0), 0.1).tolist() == pytest.approx([0.5] * 3)


def test_the_gradient_of_dpo():
    h = mx.array(RNG.normal(size=5))
    gradient = mx.grad(lambda h: losses.sigmoid(h).sum())(h)
    np.testing.assert_allclose(gradient, -1 / (1 + np.exp(np.array(h))), atol=1e-6)


def test_labels_that_say_nothing_have_no_gradient_at_the_start():
    assert mx.grad(lambda h: losses.sigmoid(h, 0.5).sum())(ZERO).tolist() == [0] * 3


def test_smoothing_keeps_the_optimum_finite():
    """σ(h) = 1 - smoothing there."""
    h = math.log(0.9 / 0.1)
    assert mx.grad(lambda h: losses.sigmoid(h, 0.1))(mx.array(h)).item() == pytest.approx(0, abs=1e-6)


def test_swapping_the_pair_turns_the_reward_models_gradient():
    chosen, rejected = mx.array(RNG.normal(size=4)), mx.array(RNG.normal(size=4))
    one = mx.grad(lambda a, b: losses.bradley_terry(a, b).sum(), argnums=(0, 1))(chosen, rejected)
    np.testing.assert_allclose(one[0], -1 / (1 + np.exp(np.array(chosen - rejected))), atol=1e-6)
    np.testing.assert_allclose(one[0], -np.array(one[1]), atol=1e-7)


def test_margin_and_centring():
    chosen, rejected = mx.array([2.0]), mx.array([1.0])
    plain = losses.bradley_terry(chosen, rejected, margin=1.0).item()
    assert plain == pytest.approx(LN2, abs=1e-6)
    assert losses.bradley_terry(chosen, rejected, 1.0, centring=0.01).item() == pytest.approx(LN2 + 0.09, abs=1e-6)


def test_all_pairs_together_find_the_true_reward():
    """Of every pair of responses, weighed by how often it is preferred: h becomes the difference of their rewards."""
    rewards = RNG.normal(size=6)
    better = mx.array(1 / (1 + np.exp(-(rewards[:, None] - rewards[None]))))

    def loss(logits):
        return (better * losses.sigmoid(logits[:, None] - logits[None])).sum()

    found = mx.zeros(6)
    for _ in range(3000):
        found = found - 0.5 * mx.grad(loss)(found)
    np.testing.assert_allclose(np.array(found) - np.array(found).mean(), rewards - rewards.mean(), atol=1e-4)


def test_simpo():
    found = losses.simpo(mx.array([-1.0]), mx.array([-1.5]), 2.0, 0.5).item()
    assert found == pytest.approx(-math.log(1 / (1 + math.exp(-0.5))), abs=1e-6)


def test_orpo_against_its_definition():
    chosen, rejected = np.array([-0.7, -2.0, -0.01]), np.array([-1.1, -0.5, -5.0])
    odds = lambda l: np.log(np.exp(l) / (1 - np.exp(l)))  # noqa: E731
    expected = -chosen - 0.1 * np.log(1 / (1 + np.exp(-(odds(chosen) - odds(rejected)))))
    np.testing.assert_allclose(losses.orpo(mx.array(chosen), mx.array(rejected), 0.1), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_orpo_of_a_certain_response_is_finite(dtype):
    certain, other = mx.array([0.0, -1e-8, -30.0]).astype(dtype), mx.array([-2.0, -2.0, -2.0]).astype(dtype)
    value, gradient = mx.value_and_grad(lambda x: losses.orpo(x, other, 0.1).sum())(certain)
    assert math.isfinite(value.item())
    assert bool(mx.all(mx.isfinite(gradient)))


def test_kto_wants_good_ones_up_and_bad_ones_down():
    desirable = mx.array([True, False])
    gradient = mx.grad(lambda r: losses.kto(r, desirable, mx.array(0.3), 0.1).sum())(mx.zeros(2))
    assert gradient[0].item() < 0 < gradient[1].item()
    z = mx.grad(lambda z: losses.kto(mx.zeros(2), desirable, z, 0.1).sum())(mx.array(0.3))
    assert z.item() == 0
    negative = losses.kto(mx.zeros(2), desirable, mx.array(-5.0), 0.1)
    assert negative.tolist() == [0.5, 0.5]
    weighed = losses.kto(mx.zeros(2), desirable, mx.array(0.0), 0.1, (2.0, 3.0))
    assert weighed.tolist() == [1, 1.5]


def test_ipo_has_its_optimum_at_one_over_two_beta():
    assert mx.grad(lambda d: losses.ipo(d, 0.25))(mx.array(2.0)).item() == 0


def test_far_off_values_stay_finite():
    h = mx.array([-1e4, 1e4])
    assert losses.sigmoid(h).tolist() == [1e4, 0]
    assert nn.log_sigmoid(h).tolist() == [-1e4, 0]
