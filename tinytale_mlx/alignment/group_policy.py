"""GRPO and its kin, and RLOO: several responses to each prompt are compared with each other; there is no critic.

What becomes of it, with G responses to a prompt and β = `kl` (measured in tests/alignment):

- RLOO, KL in the reward as k1: π_ref exp(reward / β), whatever G is
- Dr. GRPO, k2 or k3_is in the loss: the same for β G / (G - 1), since a reward is also in the mean it is compared with
- Dr. GRPO, k3 in the loss (the usual one): β' π_ref / (λ - reward) with β' = β G / (G - 1), another optimum
- divided by the group's deviation (GRPO): no such optimum; it goes to the best response, as fast as it is let

Of responses of several tokens that is exact for RLOO alone: a KL in the loss of each token does not count what the
token costs later on.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from ..recipe.align import GroupRecipe
from .advantages import group_advantages, leave_one_out
from .kl import k2, k3
from .logprobs import masked_sum
from .measured import Measured, MeasuredLoss, MeasuredStep
from .objectives import clipped_share, policy_loss, sequence_log_ratio
from .policy_trainer import PolicyTrainer, Rollout
from .preference_tuning import Reference
from .rollout import Sampler, Scorer, read, read_reference
from .scoring import Rows, micro_batches, response_logps

SCALED = ("grpo", "dapo", "gspo")
"""The methods that divide by a group's deviation."""


@dataclass(frozen=True)
class GroupRollout(Rollout):
    """Responses compared with those to the same prompt."""

    advantages: np.ndarray
    """[N]."""
    used: np.ndarray
    """[N] bool: whether there is anything to learn from it."""


class GroupPolicy(PolicyTrainer[GroupRecipe, GroupRollout]):
    """A group of responses to each prompt of an iteration."""

    def __init__(
        self,
        policy: nn.Module,
        settings: GroupRecipe,
        scorer: Scorer,
        reference: Reference,
        sampler: Sampler,
        stop: Collection[int],
        seed: int,
        vocabulary: int | None = None,
        optimizer: optim.Optimizer | None = None,
    ):
        step = MeasuredStep(policy, group_loss(settings, vocabulary), optimizer, settings.max_grad_norm)
        super().__init__(policy, step, settings, scorer, reference, sampler, stop, seed, vocabulary)

    @property
    def beta(self) -> float:
        return self.settings.kl

    def rollout(self, prompts: Sequence[list[int]]) -> GroupRollout:
        responses, scores = self.respond(prompts, self.settings.group_size)
        logps = read(self.policy, responses.rows, self.settings, self.vocabulary)
        reference = read_reference(self.reference, responses.rows, self.settings, self.vocabulary)
        kl = Rollout(responses, scores, logps, reference).kl
        return GroupRollout(responses, scores, logps, reference, *self.advantages(scores, kl, responses.ended))

    def advantages(self, scores: np.ndarray, kl: np.ndarray, ended: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each response, float32 [N], and whether there is anything to learn from it, bool [N].

        A group without deviation says nothing of the rewards; it is left out unless its KL is in the loss.
        """
        settings = self.settings
        rewards = scores - settings.kl * kl if settings.method == "rloo" else scores
        groups = mx.array(rewards.reshape(-1, settings.group_size))
        found = (
            leave_one_out(groups) if settings.method == "rloo" else group_advantages(groups, settings.method in SCALED)
        )
        advantages = np.array(found, np.float32).reshape(-1)
        used = np.ones(len(scores), bool)
        if settings.loss_kl is None:
            spread = np.ptp(rewards.reshape(-1, settings.group_size), axis=1)
            used = np.repeat(spread > 0, settings.group_size)
        return advantages, used & ended if settings.drop_truncated else used

    def describe(self, rollout: GroupRollout) -> dict[str, Any]:
        groups = rollout.scores.reshape(-1, self.settings.group_size)
        return super().describe(rollout) | {
            "groups_without_deviation": float((np.ptp(groups, axis=1) == 0).mean()),
            "used": float(rollout.used.mean()),
        }

    def update(self, rollout: GroupRollout) -> dict[str, Any]:
        """Steps on the responses that teach something; where none does, no step."""
        whole = [*rollout.responses.rows, rollout.logps, rollout.reference, rollout.advantages]
        arrays = [array[rollout.used] for array in whole]

        def pieces(chosen: np.ndarray, number: int) -> Iterator[list[np.ndarray]]:
            return micro_batches([array[chosen] for array in arrays], self.settings.micro_batch_size)

        steps = list(self.steps(int(rollout.used.sum()), pieces))
        last = steps[-1] if steps else {}
        return {
            **{name: last.get(name) for name in ("clipped", "approx_kl", "ratio", "loss_kl", "grad_norm")},
            "steps": len(steps),
            "epochs": len(steps) / self.settings.minibatches,
            "learning_rate": self.rate,
        }


def group_loss(settings: GroupRecipe, vocabulary: int | None = None) -> MeasuredLoss:
    """For a `MeasuredStep` of a policy, on arrays of Rows, log π_old and log π_ref [B, T], and advantages [B].

    What it is the mean of: Dr. GRPO, of all places a response could have filled; DAPO, of all tokens; the others, of
    responses, and GRPO within each of its tokens.
    """

    def loss(model: Any, arrays: Any) -> Measured:
        rows, (old_logps, reference, advantages) = Rows(*arrays[:3]), arrays[3:]
        mask, there = rows.mask, rows.mask.max(axis=-1)
        lengths = mx.maximum(mask.sum(axis=-1), 1)
        logps = response_logps(model, rows, settings.temperature, vocabulary)
        by_response = settings.method in ("gspo", "rloo")
        log_ratio = mx.where(mask > 0, logps - old_logps, 0)
        wide = mx.broadcast_to(advantages[:, None], mask.shape)
        if by_response:
            log_ratio = sequence_log_ratio(logps, old_logps, mask) * (lengths if settings.method == "rloo" else 1)
            wide = advantages
        policy = policy_loss(log_ratio, mx.zeros_like(log_ratio), wide, settings.clip, settings.clip_high)
        kl = _loss_kl(settings, logps, old_logps, reference)
        weight = {"dr_grpo": there * mask.shape[1], "dapo": mask.sum(axis=-1)}.get(settings.method, there)
        each = masked_sum(kl, mask) if by_response else masked_sum(policy + kl, mask)
        if settings.method in ("grpo", "gspo", "rloo"):
            each = each / lengths
        if by_response:
            each = each + mx.where(there > 0, policy, 0)
        cut = clipped_share(log_ratio, mx.zeros_like(log_ratio), wide, settings.clip, settings.clip_high)
        return each.sum(), weight.sum(), {
            "tokens": mask.sum(),
            "clipped": (cut * mask.sum(axis=-1)).sum() if by_response else masked_sum(cut, mask).sum(),
            "approx_kl": masked_sum(mx.square(logps - old_logps) / 2, mask).sum(),
            "ratio": masked_sum(mx.exp(logps - old_logps), mask).sum(),
            "loss_kl": masked_sum(kl, mask).sum(),
        }  # fmt: skip

    return loss


def _loss_kl(settings: GroupRecipe, logps: mx.array, old_logps: mx.array, reference: mx.array) -> mx.array:
    """What the KL adds to the loss of each token, [B, T]."""
    match settings.loss_kl:
        case "k2":
            return settings.kl * k2(logps, reference)
        case "k3":
            return settings.kl * k3(logps, reference)
        case "k3_is":
            return settings.kl * mx.exp(logps - old_logps) * k3(logps, reference)
    return mx.zeros_like(logps)
