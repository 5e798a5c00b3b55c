"""The learning rate as a pure function of the step: warm up, then fall (cosine: Loshchilov & Hutter 2017)."""

import math

from ..recipe import TrainRecipe


def learning_rate(step: int, train: TrainRecipe) -> float:
    """The rate of step 0, 1, ...: step w - 1 of w warm-up steps is at the top, step `decay_steps` - 1 on the floor."""
    top, floor = train.learning_rate, train.min_learning_rate
    if step < train.warmup_steps:
        return top * (step + 1) / train.warmup_steps
    if train.schedule == "constant":
        return top
    end = train.decay_steps or train.steps
    progress = min((step + 1 - train.warmup_steps) / (end - train.warmup_steps), 1.0)
    shape = (1 + math.cos(math.pi * progress)) / 2 if train.schedule == "cosine" else 1 - progress
    return floor + (top - floor) * shape
