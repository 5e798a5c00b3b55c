"""How good a model's answers are: sampled for the same held-out prompts with the same chances, before and after."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..alignment.comparing import deviation_of_mean
from ..alignment.preference_tuning import Reference
from ..alignment.reward_model import RewardModel, load_reward_model
from ..alignment.rewards import find_reward
from ..alignment.rollout import (
    Responses,
    Scorer,
    batch_sampler,
    function_scorer,
    penalized,
    read,
    read_reference,
    sample_responses,
    scores_of,
)
from ..errors import UserError
from ..randomness import key
from ..recipe.align import LengthsRecipe, PolicyRecipe
from ..recipe.align_run import ScoreRecipe
from .adapting import run_of
from .align_data import AlignData
from .loading import Loaded


@dataclass
class Scores:
    """The scorer that a recipe names, and of its parts the reward model, where there is one."""

    scorer: Scorer
    reward: RewardModel | None = None


def find_scores(settings: ScoreRecipe, loaded: Loaded, data: AlignData, lengths: LengthsRecipe, root: Path) -> Scores:
    """Raises UserError where nothing is named, or what is named is not there or is for another model."""
    reward = None if settings.reward_model is None else find_reward_model(settings.reward_model, loaded, lengths, root)
    parts: list[Scorer] = []
    if reward is not None:
        model = reward
        parts.append(lambda responses: model.score(responses.rows))
    for name in settings.functions:
        decode = loaded.tokenizer.decode
        parts.append(function_scorer(find_reward(name), decode, lambda ids: (data.answers.get(tuple(ids)), {})))
    if not parts:
        raise UserError(
            "nothing says how good a response is: add --reward-model RUN, which `tinytale rlhf reward` makes, or "
            "--reward NAME, such as contains:smiled or FILE.py:FUNCTION"
        )
    return Scores(lambda responses: np.sum([part(responses) for part in parts], axis=0), reward)


def find_reward_model(reference: str, loaded: Loaded, lengths: LengthsRecipe, root: Path) -> RewardModel:
    """The reward model of a run, or of a directory. Raises UserError where it can't read what the model writes."""
    this = run_of(reference, root)
    if this is not None and this.kind != "reward":
        raise UserError(f"the run {this.name} is one of `tinytale {this.command}`, and no reward model")
    reward = load_reward_model(this.reward if this is not None else Path(reference))
    config = reward.trunk.config
    if config.vocab_size != loaded.model.config.vocab_size:
        raise UserError(
            f"the reward model {reference} has a vocabulary of {config.vocab_size:,} and the model one of "
            f"{loaded.model.config.vocab_size:,}; a reward model reads the ids of its own base only"
        )
    needed = lengths.prompt_tokens + lengths.response_tokens
    if needed > config.context:
        raise UserError(f"the reward model {reference} reads {config.context} tokens, and these rows have {needed}")
    return reward


def sample(
    model: Any, prompts: list[list[int]], settings: PolicyRecipe, stop: set[int], vocabulary: int, random: mx.array
) -> Responses:
    """What the model answers, one response to each prompt."""
    return sample_responses(model, prompts, settings, batch_sampler(settings, stop, vocabulary), stop, random)


@dataclass
class Judge:
    """`judge(model)`: figures of its answers to the held-out prompts, the same chances each time."""

    prompts: list[list[int]]
    settings: PolicyRecipe
    reference: Reference
    stop: set[int]
    seed: int
    vocabulary: int
    scorer: Scorer | None = None

    def __call__(self, model: Any) -> dict[str, float]:
        """score and its deviation (where there is a scorer), KL from the reference in nats per response, and the
        perplexity of the responses to the reference; lengths and endings."""
        random = key(self.seed, "held out")
        responses = sample(model, self.prompts, self.settings, self.stop, self.vocabulary, random)
        rows, mask = responses.rows, responses.rows.mask
        logps = read(model, rows, self.settings, self.vocabulary)
        reference = read_reference(self.reference, rows, self.settings, self.vocabulary)
        kl = ((logps - reference) * mask).sum(axis=1)
        found = {
            "kl": float(kl.mean()),
            "kl_standard_error": deviation_of_mean(kl),
            "perplexity": float(np.exp(-(reference * mask).sum() / mask.sum())),
            "response_tokens": float(mask.sum(axis=1).mean()),
            "ended": float(responses.ended.mean()),
            "distinct": len(set(map(tuple, responses.tokens))) / len(responses.tokens),
        }
        if self.scorer is None:
            return found
        scores = penalized(scores_of(self.scorer, responses), responses.ended, self.settings)
        return {"score": float(scores.mean()), "score_std": float(scores.std()), **found}
