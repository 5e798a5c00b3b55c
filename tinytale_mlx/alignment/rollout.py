"""Responses of the policy itself: sampled in batches, then read once more, and scored.

Log-probabilities come from reading the whole response at once, as the update will do, and not from the sampler, so the
first ratio of new to old is exactly 1. What the policy is compared with is read the same way: as long as they are the
same model, their KL is exactly 0.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from ..errors import UserError
from ..generation.batch import generate_batch
from ..generation.memory import context_of
from ..recipe import GenerateRecipe
from ..recipe.align import PolicyRecipe
from . import rewards
from .comparing import deviation_of_mean
from .preference_tuning import Reference
from .scoring import Rows, in_micro_batches, lay_out, response_logps

Sampler = Callable[[Any, Sequence[list[int]], int, mx.array], list[list[int]]]
"""`sample(model, prompts, samples_per_prompt, key)`: the tokens of each response, EOS included, in order of prompts."""


@dataclass(frozen=True)
class Responses:
    """What was sampled: N responses."""

    prompts: list[list[int]]
    """One for each response."""
    tokens: list[list[int]]
    ended: np.ndarray
    """[N] bool: by itself, and not at the limit. Only the response's own last token counts."""
    rows: Rows
    seconds: float = 0.0
    """That sampling took."""


class Scorer(Protocol):
    """The rewards of responses, float32 [N]: a reward model, functions, or both."""

    def __call__(self, responses: Responses) -> np.ndarray: ...


def batch_sampler(settings: PolicyRecipe, stop: Collection[int], vocabulary: int | None = None) -> Sampler:
    """From the whole distribution at the temperature: what a filter cut off would not be what is scored."""
    how = GenerateRecipe(temperature=settings.temperature, top_p=1.0, max_new_tokens=settings.response_tokens)

    def sample(model: Any, prompts: Sequence[list[int]], samples_per_prompt: int, key: mx.array) -> list[list[int]]:
        texts = generate_batch(
            model, prompts, how, key, stop, vocabulary, samples_per_prompt, batch_size=settings.sample_batch_size
        )
        return [text.tokens for text in texts]

    return sample


def check_lengths(model: Any, settings: PolicyRecipe) -> None:
    """Raises UserError where a prompt and a response do not fit into the model's context."""
    context, needed = context_of(model), settings.prompt_tokens + settings.response_tokens
    if context is not None and needed > context:
        raise UserError(
            f"prompt_tokens {settings.prompt_tokens} and response_tokens {settings.response_tokens} are more than the "
            f"model's context of {context}"
        )


def sample_responses(
    model: Any,
    prompts: Sequence[list[int]],
    settings: PolicyRecipe,
    sampler: Sampler,
    stop: Collection[int],
    key: mx.array,
    samples_per_prompt: int = 1,
) -> Responses:
    """Of each prompt the last `prompt_tokens` are read."""
    kept = [prompt[-settings.prompt_tokens :] for prompt in prompts]
    started = time.perf_counter()
    tokens = sampler(model, kept, samples_per_prompt, key)
    seconds = time.perf_counter() - started
    mx.clear_cache()  # of the keys and values, which the update has no use for
    repeated = [prompt for prompt in kept for _ in range(samples_per_prompt)]
    ended = np.array([bool(own) and own[-1] in stop for own in tokens])
    rows = lay_out(repeated, tokens, settings.prompt_tokens, settings.response_tokens)
    return Responses(repeated, tokens, ended, rows, seconds)


def read(model: Any, rows: Rows, settings: PolicyRecipe, vocabulary: int | None) -> np.ndarray:
    """log π of each token, float32 [N, T]."""

    def logps(*arrays: mx.array) -> list[mx.array]:
        return [response_logps(model, Rows(*arrays), settings.temperature, vocabulary)]

    return in_micro_batches(logps, rows, settings.micro_batch_size)[0]


def read_reference(reference: Reference, rows: Rows, settings: PolicyRecipe, vocabulary: int | None) -> np.ndarray:
    """log π_ref of each token, float32 [N, T]."""
    with reference() as model:
        return read(model, rows, settings, vocabulary)


def penalized(scores: np.ndarray, ended: np.ndarray, settings: PolicyRecipe) -> np.ndarray:
    """Scores after the rule for responses that did not end."""
    if settings.missing_eos == "none":
        return scores
    missing = (
        scores - settings.missing_eos_penalty if settings.missing_eos == "subtract" else -settings.missing_eos_penalty
    )
    return np.where(ended, scores, missing).astype(np.float32)


def scores_of(scorer: Scorer, responses: Responses) -> np.ndarray:
    """float32 [N]. Raises UserError where one is not finite."""
    scores = np.asarray(scorer(responses), np.float32)
    if scores.shape != responses.ended.shape:
        raise ValueError(f"{len(responses.tokens)} responses have scores of shape {list(scores.shape)}")
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise UserError(f"the score of response {bad[0]} is {scores[bad[0]]}, and a finite number is needed")
    return scores


def kl_alarm(kl: np.ndarray) -> str | None:
    """What is wrong where the KL of responses, [N], is negative beyond chance; on a policy's own samples it is not."""
    error = deviation_of_mean(kl)
    if kl.mean() >= -3 * error or kl.mean() > -1e-4:
        return None
    return (
        f"the KL is {kl.mean():.3f}, which is more than 3 standard errors ({error:.3f}) below 0: the responses were "
        "not drawn from the policy that scores them"
    )


def end_alarm(responses: Responses, stop: Collection[int]) -> str | None:
    """What is wrong where none of the responses ended, though there is a token to end with."""
    if responses.ended.any() or not stop:
        return None
    return (
        f"none of {len(responses.ended)} responses ended within response_tokens {responses.rows.mask.shape[1]}: the "
        "model has not learned to end its answers, or needs more tokens for them"
    )


def response_metrics(responses: Responses, scores: np.ndarray, kl: np.ndarray, stop: Collection[int]) -> dict[str, Any]:
    """What is said of every iteration, whatever the method: scores, KL per response in nats, lengths, endings.

    `alarm` says what makes the iteration worthless, else it is None.
    """
    alarms = [alarm for alarm in (kl_alarm(kl), end_alarm(responses, stop)) if alarm]
    lengths = responses.rows.mask.sum(axis=1)
    return {
        "score": float(scores.mean()),
        "score_std": float(scores.std()),
        "kl": float(kl.mean()),
        "kl_standard_error": deviation_of_mean(kl) if len(kl) > 1 else None,
        "alarm": "; ".join(alarms) or None,
        "response_tokens": float(lengths.mean()),
        "ended": float(responses.ended.mean()),
        "distinct": len({tuple(own) for own in responses.tokens}) / len(responses.tokens),
    }


# ---------------------------------------------------------------------- where scores come from
def function_scorer(
    reward: rewards.Reward,
    decode: Callable[[Sequence[int]], str],
    answers: Callable[[list[int]], tuple[str | None, dict[str, Any]]] = lambda prompt: (None, {}),
) -> Scorer:
    """A reward function of texts; `answers(prompt)` is what the data set says of it. UserError names a bad sample."""

    def score(responses: Responses) -> np.ndarray:
        samples = []
        for prompt, tokens, ended in zip(responses.prompts, responses.tokens, responses.ended, strict=True):
            answer, row = answers(prompt)
            said = tokens[:-1] if ended else tokens
            samples.append(rewards.Sample(decode(prompt), decode(said), tokens, bool(ended), answer, row))
        return np.array(rewards.score(reward, samples), np.float32)

    return score
