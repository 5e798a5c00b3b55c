"""What PPO and the group methods share: the round of sampling, scoring and learning, and what is said of each.

An iteration samples responses to its prompts, scores them, and takes a few optimiser steps on them, in minibatches that
are shuffled for each epoch. Everything random is a function of (seed, iteration).
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import mlx.core as mx
import numpy as np

from ..randomness import key
from ..recipe.align import PolicyRecipe
from .measured import MeasuredStep
from .preference_tuning import Reference
from .rollout import Responses, Sampler, Scorer, penalized, response_metrics, sample_responses, scores_of


@dataclass(frozen=True)
class Rollout:
    """An iteration's responses and what is known of them; arrays of NumPy, [N, T] unless said."""

    responses: Responses
    scores: np.ndarray
    """[N]: after the rule for missing ends."""
    logps: np.ndarray
    reference: np.ndarray
    """log π and log π_ref of each token."""

    @property
    def kl(self) -> np.ndarray:
        """[N]: k1 of each response, in nats."""
        return ((self.logps - self.reference) * self.responses.rows.mask).sum(axis=1)


Settings = TypeVar("Settings", bound=PolicyRecipe)
Round = TypeVar("Round", bound=Rollout)


class PolicyTrainer(ABC, Generic[Settings, Round]):
    """`iterate(prompts)` samples, learns, and says how it went.

    To go on later: the model's weights, the optimiser's state (`step.optimizer`), and `to_json`.
    """

    def __init__(
        self,
        policy: Any,
        step: MeasuredStep,
        settings: Settings,
        scorer: Scorer,
        reference: Reference,
        sampler: Sampler,
        stop: Collection[int],
        seed: int,
        vocabulary: int | None,
    ):
        self.policy, self.step, self.settings = policy, step, settings
        self.scorer, self.reference, self.sampler = scorer, reference, sampler
        self.stop, self.seed, self.vocabulary = stop, seed, vocabulary
        self.iteration = 0

    def iterate(self, prompts: Sequence[list[int]]) -> dict[str, Any]:
        """One iteration on these prompts: its figures."""
        started = time.perf_counter()
        rollout = self.rollout(prompts)
        sampled = time.perf_counter()
        figures = self.describe(rollout) | self.update(rollout)
        updated = time.perf_counter()
        self.iteration += 1
        tokens = float(rollout.responses.rows.mask.sum())
        return figures | {
            "iteration": self.iteration,
            "sample_tokens_per_second": tokens / rollout.responses.seconds,
            "rollout_tokens_per_second": tokens / (sampled - started),
            "update_tokens_per_second": tokens * figures["epochs"] / (updated - sampled),
            "peak_memory_bytes": mx.get_peak_memory(),
        }

    # ------------------------------------------------------------------ what a method is
    @property
    @abstractmethod
    def beta(self) -> float:
        """What a nat of KL costs in this iteration."""

    @abstractmethod
    def rollout(self, prompts: Sequence[list[int]]) -> Round:
        """Responses to the prompts, scored, with what is learned from them; the policy stays as it is."""

    @abstractmethod
    def update(self, rollout: Round) -> dict[str, Any]:
        """Learn from a rollout; figures of the last step, and how many `steps` and `epochs` it took."""

    # ------------------------------------------------------------------ what methods are made of
    def respond(self, prompts: Sequence[list[int]], samples_per_prompt: int = 1) -> tuple[Responses, np.ndarray]:
        """Responses, and their scores [N] after the rule for missing ends."""
        random = key(self.seed, "rollout", self.iteration)
        responses = sample_responses(
            self.policy, prompts, self.settings, self.sampler, self.stop, random, samples_per_prompt
        )
        return responses, penalized(scores_of(self.scorer, responses), responses.ended, self.settings)

    def describe(self, rollout: Round) -> dict[str, Any]:
        """Figures of a rollout, before anything is learned from it."""
        return response_metrics(rollout.responses, rollout.scores, rollout.kl, self.stop) | {
            "beta": self.beta,
            "rlhf_reward": float((rollout.scores - self.beta * rollout.kl).mean()),
        }

    @property
    def rate(self) -> float:
        """The learning rate of this iteration."""
        return self.settings.learning_rate * max(1 - self.iteration / self.settings.iterations, 0)

    def steps(
        self, count: int, micro_batches: Callable[[np.ndarray, int], Iterator[list[np.ndarray]]]
    ) -> Iterator[dict[str, float]]:
        """A step on each minibatch of `count` responses, when the next one is asked for; its figures, per token.

        micro_batches(chosen, number): of the chosen responses, for the step of that number.
        """
        for number, chosen in enumerate(self._minibatches(count)):
            result = self.step(micro_batches(chosen, number), self.rate, key(self.seed, "step", number))
            tokens = max(self.step.measured["tokens"], 1.0)
            yield {name: value / tokens for name, value in self.step.measured.items()} | {"grad_norm": result.grad_norm}

    def _minibatches(self, count: int) -> Iterator[np.ndarray]:
        """Which responses each step takes; shuffled for each epoch, and none of them empty."""
        for epoch in range(self.settings.epochs):
            dice = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.iteration, epoch)))
            parts = np.array_split(dice.permutation(count), self.settings.minibatches)
            yield from (part for part in parts if len(part))

    # ------------------------------------------------------------------ what to keep
    def to_json(self) -> dict[str, Any]:
        """What a checkpoint has to remember beside weights and optimiser."""
        return {"iteration": self.iteration}

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from what `to_json` gave."""
        self.iteration = int(content["iteration"])
