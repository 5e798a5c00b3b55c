"""PPO from human feedback (Ziegler et al. 2019; Ouyang et al. 2022; details as in Huang et al. 2024).

An iteration: sample a response to each prompt; score it; take β log π/π_ref from the reward of each token; estimate
advantages with a critic (GAE, whitened over the batch); then a few epochs of steps on the clipped objective. At its
optimum the policy is π_ref exp(reward / β), normalized.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from ..recipe.align import PPORecipe
from ..training.losses import next_token_loss
from .actor_critic import ActorCritic
from .advantages import gae, token_rewards
from .kl import AdaptiveKL, k1, k3
from .logprobs import entropy, masked_mean, masked_whiten, token_logps
from .measured import Measured, MeasuredLoss, MeasuredStep
from .objectives import clipped_share, policy_loss, value_loss
from .policy_trainer import PolicyTrainer, Rollout
from .preference_tuning import Reference
from .rollout import Sampler, Scorer, read_reference
from .scoring import Rows, in_micro_batches, micro_batches, response_logits, response_tokens

MOST_RATIO = 10.0
"""A policy whose probabilities have grown by so much on average has left the data behind; no more steps on it."""
OtherText = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
"""`ptx(number, rows)`: tokens [rows, S + 1] and weights [rows, S] of other text, for optimiser step `number`."""


@dataclass(frozen=True)
class PPORollout(Rollout):
    """Responses with what the critic makes of them."""

    values: np.ndarray
    entropy: np.ndarray
    rewards: np.ndarray
    advantages: np.ndarray
    """Whitened."""
    returns: np.ndarray

    @property
    def arrays(self) -> list[np.ndarray]:
        """What the loss takes."""
        return [*self.responses.rows, self.logps, self.advantages, self.values, self.returns]


class PPO(PolicyTrainer[PPORecipe, PPORollout]):
    """One response to each prompt of an iteration, and a critic's values for a baseline."""

    def __init__(
        self,
        model: ActorCritic,
        settings: PPORecipe,
        scorer: Scorer,
        reference: Reference,
        sampler: Sampler,
        stop: Collection[int],
        seed: int,
        vocabulary: int | None = None,
        ptx: OtherText | None = None,
        optimizer: optim.Optimizer | None = None,
    ):
        losses = ppo_losses(settings, "critic" in model, vocabulary)
        step = MeasuredStep(model, losses, optimizer, settings.max_grad_norm)
        super().__init__(model.policy, step, settings, scorer, reference, sampler, stop, seed, vocabulary)
        self.model = model
        self.ptx = ptx if settings.ptx_coefficient else None
        self.controller = AdaptiveKL(settings.beta, settings.kl_target, settings.kl_horizon)

    @property
    def beta(self) -> float:
        return self.controller.beta

    def iterate(self, prompts: Sequence[list[int]]) -> dict[str, Any]:
        """One iteration on these prompts: its figures, and the β of the next."""
        figures = super().iterate(prompts)
        return figures | {"next_beta": self.controller.update(figures["kl"], len(prompts))}

    def rollout(self, prompts: Sequence[list[int]]) -> PPORollout:
        settings = self.settings
        responses, scores = self.respond(prompts)
        rows = responses.rows
        reference = read_reference(self.reference, rows, settings, self.vocabulary)
        logps, values, spread = in_micro_batches(self._read, rows, settings.micro_batch_size)
        mask = mx.array(rows.mask)
        rewards = token_rewards(mx.array(scores), k1(mx.array(logps), mx.array(reference)), mask, self.beta)
        if settings.whiten_rewards:
            rewards = masked_whiten(rewards, mask, shift_mean=False)
        advantages, returns = gae(rewards, mx.array(values), mask, settings.discount, settings.smoothing)
        white = masked_whiten(advantages, mask)
        mx.eval(rewards, white, returns)
        found = (np.array(array) for array in (rewards, white, returns))
        return PPORollout(responses, scores, logps, reference, values, spread, *found)

    def _read(self, *arrays: mx.array) -> list[mx.array]:
        """log π, value and entropy of each token, [B, T]; 0 outside the mask."""
        rows = Rows(*arrays)
        logits, values = self.model(rows, self.vocabulary)
        inside = rows.mask > 0
        logps = token_logps(logits, mx.where(inside, response_tokens(rows), 0), self.settings.temperature)
        found = logps, values, entropy(logits, self.settings.temperature)
        return [mx.where(inside, array, 0) for array in found]

    def update(self, rollout: PPORollout) -> dict[str, Any]:
        """Figures of the last step, and the first step's ratio."""
        settings, steps = self.settings, []
        pieces = lambda chosen, number: self._micro_batches(rollout, chosen, number)  # noqa: E731
        for last in self.steps(len(rollout.scores), pieces):
            steps.append(last)
            if last["ratio"] > MOST_RATIO or (settings.stop_kl is not None and last["approx_kl"] > settings.stop_kl):
                break
        first, last = steps[0], steps[-1]
        names = ("policy_loss", "value_loss", "clipped", "value_clipped", "approx_kl", "ratio", "grad_norm")
        return {
            **{name: last[name] for name in names},
            "ratio_std": max(last["ratio_square"] - last["ratio"] ** 2, 0.0) ** 0.5,
            "first_ratio": first["ratio"],
            "first_approx_kl": first["approx_kl"],
            "steps": len(steps),
            "epochs": len(steps) / settings.minibatches,
            "learning_rate": self.rate,
        }

    def _micro_batches(self, rollout: PPORollout, chosen: np.ndarray, number: int) -> Iterator[list[np.ndarray]]:
        arrays = [array[chosen] for array in rollout.arrays]
        if self.ptx is not None:
            done = self.iteration * self.settings.epochs * self.settings.minibatches
            tokens, weights = self.ptx(done + number, len(chosen))
            share = arrays[2].sum() / max(weights.sum(), 1)  # it is divided by the responses' tokens, not by its own
            arrays += [tokens, (self.settings.ptx_coefficient * share * weights).astype(np.float32)]
        return micro_batches(arrays, self.settings.micro_batch_size)

    def describe(self, rollout: PPORollout) -> dict[str, Any]:
        mask, inside = mx.array(rollout.responses.rows.mask), rollout.responses.rows.mask > 0
        logps, reference = mx.array(rollout.logps), mx.array(rollout.reference)
        error, returns = (rollout.returns - rollout.values)[inside], rollout.returns[inside]
        variance = float(returns.var())
        return super().describe(rollout) | {
            "kl_target": self.controller.target,
            "kl_k3": float(masked_mean(k3(logps, reference), mask)) * float(mask.sum()) / len(rollout.kl),
            "entropy": float(masked_mean(mx.array(rollout.entropy), mask)),
            "value": float(rollout.values[inside].mean()),
            "return": float(returns.mean()),
            "explained_variance": 1 - float(error.var()) / variance if variance > 0 else 0.0,
        }

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"beta": self.controller.beta}

    def restore(self, content: dict[str, Any]) -> None:
        super().restore(content)
        self.controller.beta = float(content["beta"])


# ---------------------------------------------------------------------- the loss
def ppo_losses(
    settings: PPORecipe, separate: bool, vocabulary: int | None = None
) -> dict[str, MeasuredLoss] | MeasuredLoss:
    """The clipped objective with values and entropy, summed over tokens, for a `MeasuredStep` of an ActorCritic.

    With a separate critic it is two, so that the activations of one model are in memory at a time.
    arrays: those of `Rollout.arrays`, and for PPO-ptx tokens [B, S+1] and weights [B, S].
    """

    def actor(model: ActorCritic, arrays: Any) -> Measured:
        rows = Rows(*arrays[:3])
        logits = response_logits(model.policy, rows, vocabulary)
        loss, figures = _policy_part(settings, logits, rows, arrays)
        return loss + _other_text(model, arrays), rows.mask.sum(), figures

    def critic(model: ActorCritic, arrays: Any) -> Measured:
        rows = Rows(*arrays[:3])
        loss, figures = _value_part(settings, model.critic.values(rows), arrays)
        return loss, rows.mask.sum(), figures

    def both(model: ActorCritic, arrays: Any) -> Measured:
        rows = Rows(*arrays[:3])
        logits, values = model(rows, vocabulary)
        loss, figures = _policy_part(settings, logits, rows, arrays)
        more, others = _value_part(settings, values, arrays)
        return loss + more + _other_text(model, arrays), rows.mask.sum(), figures | others

    return {"policy": actor, "critic": critic} if separate else both


def _policy_part(settings: PPORecipe, logits: mx.array, rows: Rows, arrays: Any) -> tuple[mx.array, dict]:
    mask, old_logps, advantages = rows.mask, arrays[3], arrays[4]
    logps = token_logps(logits, mx.where(mask > 0, response_tokens(rows), 0), settings.temperature)
    logps = mx.where(mask > 0, logps, old_logps)
    total = _total_over(mask)
    loss = policy = total(policy_loss(logps, old_logps, advantages, settings.clip))
    if settings.entropy_coefficient:
        loss = loss - settings.entropy_coefficient * total(entropy(logits, settings.temperature))
    ratio = mx.exp(logps - old_logps)
    return loss, {
        "tokens": mask.sum(),
        "policy_loss": policy,
        "clipped": total(clipped_share(logps, old_logps, advantages, settings.clip)),
        "approx_kl": total(mx.square(logps - old_logps) / 2),
        "ratio": total(ratio),
        "ratio_square": total(mx.square(ratio)),
    }


def _value_part(settings: PPORecipe, values: mx.array, arrays: Any) -> tuple[mx.array, dict]:
    old_values, returns, total = arrays[5], arrays[6], _total_over(arrays[2])
    value = total(value_loss(values, old_values, returns, settings.value_clip))
    far = mx.abs(values - old_values) > (settings.value_clip or mx.inf)
    return settings.value_coefficient * value, {"value_loss": value, "value_clipped": total(far.astype(mx.float32))}


def _other_text(model: ActorCritic, arrays: Any) -> mx.array | float:
    if len(arrays) < 9:
        return 0.0
    tokens, weights = arrays[7:]
    return next_token_loss(model.policy.logits(model.policy.hidden(tokens[:, :-1])), tokens, weights)


def _total_over(mask: mx.array) -> Callable[[mx.array], mx.array]:
    return lambda x: mx.where(mask > 0, x, 0).sum()
