"""PPO's losses: values, where they have a gradient, and that gradients are finite differences."""

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.alignment.kl import AdaptiveKL, k1, k2, k3
from tinytale_mlx.alignment.objectives import clipped_share, policy_loss, sequence_log_ratio, value_loss

RNG = np.random.default_rng(0)


def slope(advantage: float, ratio: float, **clip: float) -> float:
    """How the loss changes with the log-probability of a token."""
    return mx.grad(lambda new: policy_loss(new, mx.array(0.0), mx.array(advantage), **clip))(
        mx.array(float(np.log(ratio)))
    ).item()


@pytest.mark.parametrize(
    ("advantage", "ratio", "moves"),
    [(1, 1.0, True), (1, 1.19, True), (1, 1.21, False), (1, 0.5, True),
     (-1, 1.0, True), (-1, 0.81, True), (-1, 0.79, False), (-1, 3.0, True)],
)  # fmt: skip
def test_where_the_clip_takes_the_gradient_away(advantage, ratio, moves):
    assert slope(advantage, ratio) == pytest.approx(-advantage * ratio if moves else 0, abs=1e-6)
    share = clipped_share(mx.array(np.log(ratio)), mx.array(0.0), mx.array(float(advantage)))
    assert share.item() == (0 if moves else 1)


def test_a_higher_upper_clip():
    assert slope(1, 1.25, low=0.2, high=0.28) == pytest.approx(-1.25, abs=1e-6)
    assert slope(1, 1.29, low=0.2, high=0.28) == 0
    assert clipped_share(mx.array(np.log(1.25)), mx.array(0.0), mx.array(1.0), 0.2, 0.28).item() == 0


def test_at_the_start_the_gradient_is_that_of_reinforce():
    old, advantages = mx.array(RNG.normal(size=(3, 4))), mx.array(RNG.normal(size=(3, 4)))
    gradient = mx.grad(lambda new: policy_loss(new, old, advantages).sum())(old)
    np.testing.assert_allclose(gradient, -np.array(advantages), atol=1e-6)


def test_the_policy_gradient_is_the_exact_one():
    """Over all tokens of a softmax, Σ π x loss has the gradient of -E[A]."""
    logits, advantages = mx.array(RNG.normal(size=6)), mx.array(RNG.normal(size=6))
    probabilities = mx.softmax(logits)

    def surrogate(logits):
        new = logits - mx.logsumexp(logits)
        return (probabilities * policy_loss(new, mx.log(probabilities), advantages)).sum()

    exact = mx.grad(lambda logits: -(mx.softmax(logits) * advantages).sum())(logits)
    np.testing.assert_allclose(mx.grad(surrogate)(logits), exact, atol=1e-6)


def test_the_larger_one_of_two_value_losses():
    values, old, returns = mx.array([1.0, 1.0, 1.0]), mx.array([0.0, 1.0, 0.9]), mx.array([2.0, 3.0, 0.0])
    # Clipped to 0.2 the first is further from its return; the others are as near as they were.
    np.testing.assert_allclose(value_loss(values, old, returns, 0.2), [1.8**2 / 2, 2, 0.5], atol=1e-6)
    np.testing.assert_allclose(value_loss(values, old, returns, None), [0.5, 2, 0.5], atol=1e-6)


def test_value_gradients_are_finite_differences():
    values, old, returns = (RNG.normal(size=8).astype(np.float32) for _ in range(3))

    def loss(v: np.ndarray) -> float:
        near = old + np.clip(v - old, -0.2, 0.2)
        return float(np.maximum((v - returns) ** 2, (near - returns) ** 2).sum() / 2)

    found = mx.grad(lambda v: value_loss(v, mx.array(old), mx.array(returns)).sum())(mx.array(values))
    for i in range(8):
        step = np.zeros(8)
        step[i] = 1e-4
        assert found[i].item() == pytest.approx((loss(values + step) - loss(values - step)) / 2e-4, abs=1e-3)


def test_a_response_as_one_token():
    logps, old = mx.array([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]]), mx.array([[0.5, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert sequence_log_ratio(logps, old, mx.array([[1.0, 1, 0], [1, 0, 0]])).tolist() == [0.75, 2]


def test_estimators_agree_with_the_divergence():
    logits, reference = mx.array(RNG.normal(size=7)), mx.array(RNG.normal(size=7))
    p, q = logits - mx.logsumexp(logits), reference - mx.logsumexp(reference)
    exact = (mx.exp(p) * (p - q)).sum().item()
    assert (mx.exp(p) * k1(p, q)).sum().item() == pytest.approx(exact, abs=1e-6)
    assert (mx.exp(p) * k3(p, q)).sum().item() == pytest.approx(exact, abs=1e-6)
    assert mx.all(k3(p, q) >= 0)
    assert k3(p, p).tolist() == k2(p, p).tolist() == [0] * 7


def test_the_gradient_of_k2_is_that_of_the_divergence():
    """On the policy's own samples; that of k1 is nothing."""
    logits, reference = mx.array(RNG.normal(size=7)), mx.array(RNG.normal(size=7))
    q = reference - mx.logsumexp(reference)
    weights = mx.softmax(logits)

    def expected(estimate):
        return mx.grad(lambda x: (weights * estimate(x - mx.logsumexp(x), q)).sum())(logits)

    exact = mx.grad(lambda x: (mx.softmax(x) * (x - mx.logsumexp(x) - q)).sum())(logits)
    np.testing.assert_allclose(expected(k2), exact, atol=1e-6)
    np.testing.assert_allclose(expected(k1), np.zeros(7), atol=1e-6)


def test_beta_rises_above_the_target_and_falls_below():
    control = AdaptiveKL(0.2, target=6, horizon=10_000)
    assert control.update(6, 64) == 0.2
    assert control.update(60, 64) == pytest.approx(0.2 * (1 + 0.2 * 64 / 10_000))
    assert control.update(0, 64) == pytest.approx(0.2 * (1 + 0.2 * 64 / 10_000) * (1 - 0.2 * 64 / 10_000))
    assert control.update(6.6, 100) == pytest.approx(control.beta)
    assert AdaptiveKL(0.2, None, 10).update(100, 64) == 0.2
    assert AdaptiveKL(0.2, 3, 100).update(0, 1024) == pytest.approx(0.16)  # many responses do not make it negative
