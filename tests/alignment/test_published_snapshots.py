"""The snapshots of Stanford's CS336, assignment 5 (alignment): those that need no model.

Their inputs are PyTorch's random numbers of the seed 42, which are drawn again here without PyTorch.
"""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.alignment.advantages import group_advantages
from tinytale_mlx.alignment.logprobs import entropy, masked_mean, masked_sum
from tinytale_mlx.alignment.objectives import policy_loss

B, T, VOCABULARY = 2, 10, 100


def uniform(*shape: int) -> np.ndarray:
    """torch.manual_seed(42); torch.rand(shape): the low 24 bits of a Mersenne twister's numbers."""
    count = int(np.prod(shape))
    raw = np.array(np.random.RandomState(42)._bit_generator.random_raw(count))  # type: ignore[attr-defined]
    return ((raw & (2**24 - 1)) / 2**24).reshape(shape)


def normal(*shape: int) -> np.ndarray:
    """torch.manual_seed(42); torch.randn(shape): Box and Muller's, of 16 at a time, the last 16 drawn anew."""
    count = int(np.prod(shape))
    drawn = uniform(-(-count // 16) * 16 + 16 if count % 16 else count)
    whole = count // 16 * 16
    blocks = drawn[:whole].reshape(-1, 2, 8)
    found = np.zeros(count)
    found[:whole] = _polar(blocks)
    if count % 16:
        found[-16:] = _polar(drawn[count : count + 16].reshape(1, 2, 8))
    return found.reshape(shape)


def _polar(blocks: np.ndarray) -> np.ndarray:
    radius, angle = np.sqrt(-2 * np.log(1 - blocks[:, 0])), 2 * np.pi * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def check(found: Any, expected: Any, rtol: float = 1e-5, atol: float = 2e-6) -> None:
    np.testing.assert_allclose(found, expected, rtol, atol)


LOGITS = mx.array(normal(B, T, VOCABULARY))
MASK = mx.array((uniform(B, T, VOCABULARY) > 0.5).astype(np.float32))
LOGPS = mx.array(normal(B, T))
OLD = 2 * LOGPS
"""Drawn with the same seed and added."""
RESPONSE = mx.array((uniform(B, T) > 0.5).astype(np.float32))
RAW = mx.array(uniform(B, 1))
ADVANTAGES = RAW - RAW.mean()


def test_the_numbers_are_pytorchs():
    check(LOGPS[0, :4], [1.926915, 1.487284, 0.900717, -2.105521])
    check(RAW[:, 0], [0.882269, 0.915004])


def test_entropy():
    expected = [
        [4.157339, 4.25809, 4.200003, 4.194466, 4.106727, 4.066987, 4.090223, 4.00617, 4.149583, 4.099516],
        [4.282163, 3.872047, 4.1143, 4.024293, 4.225577, 4.083561, 4.27724, 4.052284, 4.201158, 4.273294],
    ]
    check(entropy(LOGITS), expected)


def test_rewards_of_a_group():
    rewards = np.array([[0.2, 0.5, 0.0, 0.4], [0.9, 0.7, 0.2, 0.0]])
    plain = [[-0.075, 0.225, -0.275, 0.125], [0.45, 0.25, -0.25, -0.45]]
    check(group_advantages(mx.array(rewards)), plain)
    scaled = [[-0.338239, 1.014718, -1.24021, 0.563732], [1.070617, 0.594787, -0.594787, -1.070617]]
    deviation = rewards.std(axis=1, ddof=1, keepdims=True)
    theirs = (deviation + 1e-4) / (deviation + 1e-6)  # they add less to what they divide by
    check(group_advantages(mx.array(rewards), scale=True) * theirs, scaled)


CLIPPED = {
    0.1: [
        [0.014731, 0.014731, 0.014731, 0.134398, 0.034932, 0.014731, 0.014731, 0.014731, 0.014731, 0.032522],
        [-0.018004, -0.012856, -0.018004, -0.015698, -0.018004, -0.006927, -0.018004, -0.018004, -0.007329, -0.018004],
    ],
    0.5: [
        [0.008184, 0.008184, 0.008184, 0.134398, 0.034932, 0.008184, 0.008184, 0.008184, 0.011466, 0.032522],
        [-0.024551, -0.012856, -0.020633, -0.015698, -0.021049, -0.006927, -0.02231, -0.024313, -0.007329, -0.024551],
    ],
    10.0: [
        [0.002383, 0.003699, 0.00665, 0.134398, 0.034932, 0.005568, 0.007348, 0.003049, 0.011466, 0.032522],
        [-0.026807, -0.012856, -0.020633, -0.015698, -0.021049, -0.006927, -0.02231, -0.024313, -0.007329, -0.030474],
    ],
}


@pytest.mark.parametrize("clip", list(CLIPPED))
def test_the_clipped_loss(clip):
    check(policy_loss(LOGPS, OLD, ADVANTAGES, clip), CLIPPED[clip])


def test_the_policy_gradient_with_and_without_a_baseline():
    """Their loss is -A log π; at the start, where new is old, ours has its gradient, -A."""
    plain = [
        [-1.700058, -1.312185, -0.794675, 1.857636, 0.668876, -0.951366, -0.706522, -1.48276, -0.313964, 0.605786],
        [0.451423, -0.220962, 0.211937, -0.03821, 0.230192, -0.786774, 0.283401, 0.362077, -0.735123, 0.568762],
    ]
    centred = [
        [0.031538, 0.024343, 0.014742, -0.034462, -0.012409, 0.017649, 0.013107, 0.027507, 0.005824, -0.011238],
        [0.008075, -0.003953, 0.003791, -0.000683, 0.004118, -0.014074, 0.005069, 0.006477, -0.01315, 0.010174],
    ]
    for advantages, expected in ((RAW, plain), (ADVANTAGES, centred)):
        loss = lambda logps, own=advantages: policy_loss(logps, LOGPS, own).sum()  # noqa: E731
        check(mx.grad(loss)(LOGPS) * LOGPS, expected)


def test_masked_means():
    assert masked_mean(LOGITS, MASK).item() == pytest.approx(-0.407019, abs=1e-6)
    last = [
        [-0.368846, -0.373899, -0.592903, -0.419596, -0.411345, -0.422425, -0.359592, -0.313956, -0.639825, -0.554244],
        [-0.271867, -0.242362, -0.423126, -0.380377, -0.498155, -0.53856, -0.326237, -0.288905, -0.472061, -0.273224],
    ]
    check(masked_sum(LOGITS, MASK) / MASK.sum(axis=-1), last)


def test_masked_sums_over_a_constant():
    assert masked_sum(LOGITS, MASK).sum().item() / 42 == pytest.approx(-9.632784, abs=1e-5)
    last = [
        [-0.465448, -0.391703, -0.508203, -0.479538, -0.479903, -0.502887, -0.4024, -0.373757, -0.822632, -0.593833],
        [-0.323651, -0.294297, -0.564168, -0.498113, -0.510016, -0.743726, -0.396145, -0.371449, -0.618175, -0.29274],
    ]
    check(masked_sum(LOGITS, MASK) / 42, last)


@pytest.mark.parametrize(("constant", "loss"), [(1, -0.600784), (42, -0.014304)])
def test_half_a_step_of_fine_tuning(constant, loss):
    """Of two micro-batches, the mean over responses of the sum over tokens."""
    nats = lambda logps: -masked_sum(logps, RESPONSE).mean() / constant / 2  # noqa: E731
    found, gradient = mx.value_and_grad(nats)(LOGPS)
    assert found.item() == pytest.approx(loss, abs=1e-6)
    check(gradient, -0.25 / constant * RESPONSE)


def test_half_a_step_of_grpo():
    """Of two micro-batches, the mean over responses of the mean over tokens."""

    def loss(logps: mx.array) -> mx.array:
        each = policy_loss(logps, OLD, ADVANTAGES, 0.1)
        return (masked_sum(each, RESPONSE) / RESPONSE.sum(axis=-1)).mean() / 2

    found, gradient = mx.value_and_grad(loss)(LOGPS)
    assert found.item() == pytest.approx(0.004401, abs=1e-6)
    expected = np.zeros((B, T))
    expected[0, 3], expected[1, 1], expected[1, 3] = 0.0056, -0.000402, -0.000491
    check(gradient, expected, rtol=1e-3)
