"""How far the policy has moved from the reference: estimators, and the controller that keeps it at a target.

Of a token drawn from π, with r = π_ref / π: k1 = -log r, k2 = ½ (log r)², k3 = r - 1 - log r (Schulman 2020). All
estimate KL(π‖π_ref), but as a part of an objective they differ. k1 in the reward gives π* ∝ π_ref exp(reward / β); in
a loss, differentiated directly, its expected gradient is nothing. k3 in a loss leads to another optimum than π*, and k2
to π*. So rewards here take k1 and nothing else.
"""

import mlx.core as mx


def k1(logps: mx.array, reference: mx.array) -> mx.array:
    """log π - log π_ref per token: unbiased, may be negative."""
    return logps - reference


def k2(logps: mx.array, reference: mx.array) -> mx.array:
    """½ (log π - log π_ref)² per token: biased; its gradient is that of KL(π‖π_ref) on the policy's own samples."""
    return mx.square(logps - reference) / 2


def k3(logps: mx.array, reference: mx.array) -> mx.array:
    """π_ref/π - 1 - log(π_ref/π) per token: unbiased, never negative, the usual one of GRPO's loss."""
    difference = reference - logps
    return mx.exp(difference) - difference - 1


class AdaptiveKL:
    """β, raised while the KL of whole responses is above its target, and lowered below it (Ziegler et al. 2019, 2.2).

    Over `horizon` episodes β moves by a fifth at most, and so it does after a batch that has more than those: the
    published rule would make it negative there. With a target of None it stays where it is.
    """

    def __init__(self, beta: float, target: float | None, horizon: int):
        self.beta, self.target, self.horizon = beta, target, horizon

    def update(self, observed: float, episodes: int) -> float:
        """After a batch of `episodes` responses with that mean KL, in nats per response; returns the new β."""
        if self.target is not None:
            error = min(max(observed / self.target - 1, -0.2), 0.2)
            self.beta *= 1 + error * min(episodes / self.horizon, 1)
        return self.beta
