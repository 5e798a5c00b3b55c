"""What changes with the step, as pure functions of it: the learning rate, and how many micro-batches make a step.

The rate warms up, then falls: along a cosine (Loshchilov & Hutter 2017), in a straight line, or in the last part of the
run only (warm-up, stable, decay: Hu et al. 2024; in a straight line too, which Hägele et al. 2024 found no worse).
"""

import itertools
import math
from bisect import bisect_right

from ..recipe import TrainRecipe


def learning_rate(step: int, train: TrainRecipe) -> float:
    """The rate of step 0, 1, ...: step w - 1 of w warm-up steps is at the top, step `decay_end` - 1 on the floor."""
    top, floor, end = train.learning_rate, train.min_learning_rate, train.decay_end
    if step < train.warmup_steps:
        return top * (step + 1) / train.warmup_steps
    start = end - train.num_cooldown_steps if train.schedule == "wsd" else train.warmup_steps
    if train.schedule == "constant" or step < start:
        return top
    progress = min((step + 1 - start) / (end - start), 1.0)
    shape = (1 + math.cos(math.pi * progress)) / 2 if train.schedule == "cosine" else 1 - progress
    return floor + (top - floor) * shape


def accumulate_at(step: int, train: TrainRecipe) -> int:
    """How many micro-batches step 0, 1, ... takes."""
    return _pieces(train)[max(start for start in _pieces(train) if start <= step)]


def micro_batches_before(step: int, train: TrainRecipe) -> int:
    """How many all steps before this one took; so its own first one is `Batches.at` of that number."""
    pieces = _pieces(train)
    borders = [*(start for start in pieces if start < step), step]
    return sum((end - start) * pieces[start] for start, end in itertools.pairwise(borders))


def steps_of_epochs(rows: int, train: TrainRecipe) -> int:
    """How many whole steps `train.epochs` times that many rows are; at least one."""
    assert train.epochs is not None
    batches = int(train.epochs * rows) // train.batch_size
    return max(bisect_right(range(1, batches + 1), batches, key=lambda step: micro_batches_before(step, train)), 1)


def _pieces(train: TrainRecipe) -> dict[int, int]:
    """From which step on it is how many, in order."""
    return dict(sorted({0: train.accumulate, **train.accumulate_schedule}.items()))
