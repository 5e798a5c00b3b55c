"""A training step of a recipe, as `tinytale train` takes it, on random tokens: what several benchmarks measure."""

import time
from collections.abc import Callable
from functools import partial

import mlx.core as mx
import numpy as np

from tinytale_mlx import stages
from tinytale_mlx.errors import UserError
from tinytale_mlx.planning.memory import Memory
from tinytale_mlx.planning.parameters import planned_config, vocabulary
from tinytale_mlx.recipe import Recipe
from tinytale_mlx.stages.planning import check_memory, forecast_here
from tinytale_mlx.training.losses import token_loss
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.step import Step, StepResult

from .apart import Figures, Unavailable

MicroBatch = tuple[np.ndarray, np.ndarray]
"""Tokens [B, T+1] and weights [B, T]."""


def step_of(recipe: Recipe) -> Step:
    """A new model and optimiser, with the recipe's memory switches."""
    model, train = stages.blueprint(recipe), recipe.train
    model.recompute(train.gradient_checkpointing, train.gradient_checkpointing_every)
    loss = partial(token_loss, chunk_tokens=train.loss_chunk_tokens)
    step = Step(model, make_optimizer(train), train.max_grad_norm, loss, train.precision)
    mx.eval(model.parameters(), step.optimizer.state)
    return step


def random_batches(recipe: Recipe, number: int) -> list[MicroBatch]:
    """The micro-batches of the step with that number."""
    dice, train, config = np.random.default_rng(number), recipe.train, planned_config(recipe)
    size = (train.accumulate, train.batch_size, config.context + 1)
    weights = np.ones((train.batch_size, config.context), np.float32)
    return [(tokens, weights) for tokens in dice.integers(0, config.vocab_size, size).astype(np.int32)]


def take(step: Step, recipe: Recipe, number: int) -> StepResult:
    return step(random_batches(recipe, number), recipe.train.learning_rate, mx.random.key(number))


def tokens_of_a_step(recipe: Recipe) -> int:
    return recipe.train.batch_size * recipe.train.accumulate * recipe.model.context


def timed(work: Callable[[], object]) -> Figures:
    """What it takes: seconds, CPU seconds of all threads, and bytes at the peak by MLX's count."""
    mx.reset_peak_memory()
    started, spent = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - spent
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak": mx.get_peak_memory()}


def forecast_memory(recipe: Recipe) -> Memory:
    """What the planner expects here. Raises Unavailable where there is not so much memory."""
    found = forecast_here(recipe, vocabulary(recipe)[0])
    try:
        check_memory(recipe, found)
    except UserError as error:
        raise Unavailable(str(error)) from error
    return found.memory


def peak(recipe: Recipe, count: int = 2) -> int:
    """Bytes at the highest of so many steps, by MLX's count."""
    step = step_of(recipe)
    mx.reset_peak_memory()
    for number in range(count):
        take(step, recipe, number)
    return mx.get_peak_memory()
