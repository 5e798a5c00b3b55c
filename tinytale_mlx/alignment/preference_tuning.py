"""DPO and its kin: a policy tuned on preferences directly, in batches, without sampling.

What the reference thinks of the responses does not change, so it is computed once, before the first step, and is part
of the data: `with_reference`. Everything is a loss for a `MeasuredStep`, its figures sums over pairs.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from ..recipe.align import PreferenceRecipe
from ..training.step import StepResult
from . import preference_losses as losses
from .logprobs import masked_sum
from .measured import Measured, MeasuredLoss, MeasuredStep
from .pairs import Comparisons, Labels
from .scoring import Rows, in_micro_batches, response_logps, sequence_logps

Reference = Callable[[], AbstractContextManager[Any]]
"""`with reference() as model:` gives what the policy is compared with: `tuned.disabled`, or a frozen copy."""


class Pairs(NamedTuple):
    """Two responses to each of N prompts, the chosen one first."""

    ids: Any
    """[N, 2, P + T], see `Rows`."""
    starts: Any
    mask: Any
    reference: Any
    """[N, 2] float32: log π_ref of each response, the sum over its tokens."""


class LabelledRows(NamedTuple):
    """Responses with labels, for KTO; in a batch each prompt also has the response of its neighbour."""

    ids: Any
    starts: Any
    mask: Any
    desirable: Any
    reference: Any
    """[N] float32, as in `Pairs`."""


def all_pairs(comparisons: Comparisons) -> Rows:
    """Every comparison of every ranking as a row of two, [M, 2, ...], the better one first."""
    found = [
        (row, better, worse)
        for row, ranks in enumerate(comparisons.ranks)
        for better, first in enumerate(ranks)
        for worse, then in enumerate(ranks)
        if first < then < np.inf
    ]
    rows = np.array([row for row, *_ in found])[:, None]
    both = np.array([pair for _, *pair in found])
    return Rows(comparisons.ids[rows, both], comparisons.starts[rows, both], comparisons.mask[rows, both])


def with_reference(rows: Rows, reference: Reference, micro_batch_size: int = 16) -> np.ndarray:
    """log π_ref of each response, float32 of the shape of `rows.starts`. Before the first step, or from a copy."""
    shape = rows.starts.shape
    flat = Rows(*(array.reshape(-1, array.shape[-1]) for array in (rows.ids, rows.starts[..., None], rows.mask)))
    flat = flat._replace(starts=flat.starts[:, 0])
    with reference() as model:
        found = in_micro_batches(lambda *arrays: [sequence_logps(model, Rows(*arrays))], flat, micro_batch_size)
    return found[0].reshape(shape)


def preference_loss(settings: PreferenceRecipe) -> MeasuredLoss:
    """The loss of every method but KTO, on the arrays of `Pairs`: a sum over pairs, and their number.

    Both responses of a pair are in one pass. Measured: rewards β log π/π_ref, accuracy and margin of each pair, and
    log π per token.
    """

    def loss(model: Any, arrays: Any) -> Measured:
        pairs = Pairs(*arrays)
        flat = Rows(
            pairs.ids.reshape(-1, pairs.ids.shape[-1]),
            pairs.starts.reshape(-1),
            pairs.mask.reshape(-1, pairs.mask.shape[-1]),
        )
        lengths = mx.maximum(pairs.mask.sum(axis=-1), 1)
        logps = masked_sum(response_logps(model, flat), flat.mask).reshape(-1, 2)
        each = pair_losses(settings, logps, pairs.reference, lengths)
        there = pairs.mask.sum(axis=(1, 2)) > 0
        rewards = settings.beta * (logps - pairs.reference)
        margin = rewards[:, 0] - rewards[:, 1]
        if settings.method in ("orpo", "simpo"):  # their reward is the likelihood per token
            margin = settings.beta * (logps / lengths @ mx.array([1.0, -1.0]))
        figures = {
            "accuracy": (margin > 0) + 0.5 * (margin == 0),
            "margin": margin,
            "chosen_reward": rewards[:, 0],
            "rejected_reward": rewards[:, 1],
            "chosen_logp": logps[:, 0] / lengths[:, 0],
            "rejected_logp": logps[:, 1] / lengths[:, 1],
        }
        total = lambda x: mx.where(there, x, 0).sum()  # noqa: E731
        return total(each), there.sum().astype(mx.float32), {name: total(x) for name, x in figures.items()}

    return loss


def pair_losses(settings: PreferenceRecipe, logps: mx.array, reference: mx.array, lengths: mx.array) -> mx.array:
    """The loss of each pair, [B]; log π and log π_ref of whole responses, and their lengths, [B, 2], chosen first."""
    mean = logps / lengths
    match settings.method:
        case "orpo":
            return losses.orpo(mean[:, 0], mean[:, 1], settings.beta)
        case "simpo":
            each = losses.simpo(mean[:, 0], mean[:, 1], settings.beta, settings.margin)
        case "ipo":
            ratios = mean - reference / lengths
            each = losses.ipo(ratios[:, 0] - ratios[:, 1], settings.beta)
        case _:
            ratios = logps - reference
            h = settings.beta * (ratios[:, 0] - ratios[:, 1])
            each = losses.hinge(h) if settings.method == "hinge" else losses.sigmoid(h, settings.smoothing)
    return each - settings.nll * mean[:, 0] if settings.nll else each


# ---------------------------------------------------------------------- KTO
def kto_loss(settings: PreferenceRecipe) -> MeasuredLoss:
    """On the arrays of `LabelledRows` and the baseline, [B]; a sum over responses, and their number."""
    weights = settings.desirable_weight, settings.undesirable_weight

    def loss(model: Any, arrays: Any) -> Measured:
        rows, baseline = LabelledRows(*arrays[:5]), arrays[5]
        ratios = sequence_logps(model, Rows(*rows[:3])) - rows.reference
        there = rows.mask.sum(axis=-1) > 0
        good = rows.desirable & there
        each = losses.kto(ratios, rows.desirable, baseline, settings.beta, weights)
        rewards = settings.beta * ratios
        figures = {
            "desirable": good.sum().astype(mx.float32),
            "desirable_reward": mx.where(good, rewards, 0).sum(),
            "undesirable_reward": mx.where(there & ~good, rewards, 0).sum(),
        }
        return mx.where(there, each, 0).sum(), there.sum().astype(mx.float32), figures

    return loss


class KTOStep:
    """A step of KTO, called as any `Step`: it first estimates KL(π‖π_ref) of the batch, without a gradient.

    The estimate is the mean of log π/π_ref of responses to other prompts (Ethayarajh et al. 2024, eq. 7): each prompt
    of a batch with its neighbour's response. It is one for all micro-batches and lanes. `reference` is only entered,
    and left, between updates.
    """

    def __init__(self, step: MeasuredStep, reference: Reference):
        self.step, self.reference = step, reference
        self.baseline = 0.0

    def __call__(
        self, micro_batches: Iterable[tuple[np.ndarray, ...]], learning_rate: float, key: mx.array
    ) -> StepResult:
        batches = [LabelledRows(*batch) for batch in micro_batches]
        size = len(batches[0].ids)
        whole = LabelledRows(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))
        other = mismatched(Rows(*whole[:3]))
        policy = in_micro_batches(lambda *a: [sequence_logps(self.step.model, Rows(*a))], other, size)[0]
        self.baseline = max(float((policy - with_reference(other, self.reference, size)).mean()), 0.0)
        return self.step(self._with_baseline(batches), learning_rate, key)

    def _with_baseline(self, batches: list[LabelledRows]) -> Iterator[tuple[np.ndarray, ...]]:
        for batch in batches:
            yield *batch, np.full(len(batch.ids), self.baseline, np.float32)


def mismatched(rows: Rows) -> Rows:
    """Every prompt with the next row's response, the last one with the first's; NumPy's arrays."""
    ids, mask = rows.ids.copy(), np.roll(rows.mask, -1, axis=0)
    width = mask.shape[1]
    for row in range(len(ids)):
        start, then = rows.starts[row], (row + 1) % len(ids)
        ids[row, start:] = 0
        ids[row, start : start + width] = rows.ids[then, rows.starts[then] : rows.starts[then] + width]
    return Rows(ids, rows.starts, mask)


def labelled_rows(labels: Labels, reference: Reference, micro_batch_size: int = 16) -> LabelledRows:
    """The data of KTO with what the reference thinks of it."""
    rows = Rows(*labels[:3])
    return LabelledRows(*labels, with_reference(rows, reference, micro_batch_size))
