"""How much better than expected each token was: rewards per token, and three ways to a baseline.

PPO learns the baseline, a value function, and smooths with GAE (Schulman et al. 2016). GRPO (Shao et al. 2024) and
RLOO (Ahmadian et al. 2024) compare the responses to one prompt with each other, and need no second model.
"""

import mlx.core as mx


def token_rewards(scores: mx.array, kl: mx.array, mask: mx.array, beta: float | mx.array) -> mx.array:
    """-β k1 at every token, and the score at the last one (Ziegler et al. 2019, eq. 2).

    scores [B]; kl, the k1 of each token, and mask [B, T]; returns float32 [B, T], 0 outside the mask.
    """
    position = mx.arange(mask.shape[1])[None]
    last = mask.sum(axis=-1, keepdims=True).astype(mx.int32) - 1
    rewards = -beta * kl + mx.where(position == last, scores[:, None], 0)
    return mx.where(mask > 0, rewards, 0)


def gae(
    rewards: mx.array, values: mx.array, mask: mx.array, discount: float = 1.0, smoothing: float = 0.95
) -> tuple[mx.array, mx.array]:
    """Generalised advantage estimates, and the returns that the values are to learn; all [B, T], γ and λ as given.

    A_t = δ_t + γλ A_{t+1} with δ_t = R_t + γ V_{t+1} - V_t; behind the mask there is nothing to come.
    """
    values = mx.where(mask > 0, values, 0)
    advantages: list[mx.array] = []
    following = next_value = mx.zeros(values.shape[0])
    for t in reversed(range(values.shape[1])):
        surprise = rewards[:, t] + discount * next_value - values[:, t]
        following = mx.where(mask[:, t] > 0, surprise + discount * smoothing * following, 0)
        next_value = values[:, t]
        advantages.append(following)
    result = mx.stack(advantages[::-1], axis=1)
    return result, result + values


def group_advantages(rewards: mx.array, scale: bool = False) -> mx.array:
    """Each reward less the mean of its group; rewards and result [prompts, responses].

    With `scale` also divided by the group's standard deviation (ddof 1), as in GRPO; without, Dr. GRPO (Liu et al.
    2025), which does not weigh a prompt by how alike its answers are. The sample's own reward is in the mean, which
    multiplies the gradient, and so β's inverse, by (G-1)/G.
    """
    centred = rewards - rewards.mean(axis=-1, keepdims=True)
    if not scale:
        return centred
    count = rewards.shape[-1]
    deviation = mx.sqrt(mx.square(centred).sum(axis=-1, keepdims=True) / max(count - 1, 1))
    return centred / (deviation + 1e-4)


def leave_one_out(rewards: mx.array) -> mx.array:
    """Each reward less the mean of the others of its group (RLOO, Kool et al. 2019); [prompts, responses]."""
    count = rewards.shape[-1]
    if count < 2:
        raise ValueError("to leave one out takes two responses or more")
    return (rewards - rewards.mean(axis=-1, keepdims=True)) * (count / (count - 1))
