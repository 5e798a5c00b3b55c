"""The two models that PPO trains, as one module: what acts, and what foresees how well that will go."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .reward_model import RewardModel, ScalarHead
from .scoring import Rows, response_hidden


class ActorCritic(nn.Module):
    """A policy with a critic of its own (a RewardModel), or with a head that begins at zero (Ziegler et al. 2019).

    The head takes hardly any memory, but what it learns moves the policy's trunk as well. A separate critic begins as
    the reward model, which knows much already (Ouyang et al. 2022).
    """

    def __init__(self, policy: Any, critic: RewardModel | int):
        """critic: the model, or the width of the policy's hidden states, where its trunk is to be shared."""
        super().__init__()
        self.policy = policy
        if isinstance(critic, RewardModel):
            self.critic = critic
        else:
            self.value_head = ScalarHead(critic)

    def __call__(self, rows: Rows, vocabulary: int | None = None) -> tuple[mx.array, mx.array]:
        """Logits [B, T, vocabulary] and values [B, T] of each token of the response, before it is known."""
        hidden = response_hidden(self.policy.hidden(rows.ids), rows)
        shared = "value_head" in self
        values = self.value_head(hidden) if shared else self.critic.values(rows)
        return self.policy.logits(hidden)[..., :vocabulary], values
