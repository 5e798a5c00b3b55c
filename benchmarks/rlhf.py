"""What does aligning cost beside fine-tuning: memory, time, and is sampling as fast as plain generation?

    tinytale bench rlhf --size 1m 17m

One iteration of PPO and of Dr. GRPO and one step of DPO, beside a fine-tuning step of the same model on as many tokens,
in micro-batches of the same shape; all with LoRA, in float32, on random tokens with random weights, so every response
is as long as it may be. Policy, reward model and a separate critic are models of one shape; the reference is the policy
with its adapter off. Each is a process of its own; they take turns, and ratios are the medians of the rounds' ratios.
With --peers TRL takes the step of DPO as well, on transformers' Llama; unlike ours it asks the reference each time.
The goals: an iteration of PPO in at most 1.6 times the memory, and sampling at 0.8 times the speed at least.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from tinytale_mlx import recipe_files, stages
from tinytale_mlx.alignment.actor_critic import ActorCritic
from tinytale_mlx.alignment.group_policy import GroupPolicy
from tinytale_mlx.alignment.measured import MeasuredStep, adam
from tinytale_mlx.alignment.ppo import PPO
from tinytale_mlx.alignment.preference_tuning import preference_loss
from tinytale_mlx.alignment.reward_model import RewardModel, reward_adapter
from tinytale_mlx.alignment.rollout import Scorer, batch_sampler
from tinytale_mlx.alignment.scoring import lay_out
from tinytale_mlx.generation.batch import generate_batch
from tinytale_mlx.planning.parameters import planned_config
from tinytale_mlx.recipe import GenerateRecipe, Recipe
from tinytale_mlx.recipe.align import GroupRecipe, PPORecipe, PreferenceRecipe
from tinytale_mlx.recipe.tuning import TuneRecipe
from tinytale_mlx.training.step import Step
from tinytale_mlx.tuning import Tuned, attach, new_adapter

from . import steps
from .apart import Figures, Worker, take_turns
from .machine import process_peak
from .results import Column, Report, Row
from .runner import main
from .training import SIZES

QUICK = {"size": ["1m"], "rounds": 2, "rows": 16, "tokens": 32}
SFT, GENERATION = "fine-tuning step", "batched generation"
MICRO_BATCH, GROUP = 16, 8
RATE = 1e-3
KEY = mx.random.key(0)


class Work(NamedTuple):
    """So many rows, each of so many tokens of prompt, and as many of response."""

    recipe: Recipe
    rows: int
    tokens: int

    @property
    def prompts(self) -> list[list[int]]:
        dice = np.random.default_rng(0)
        return dice.integers(1, self.recipe.tokenizer.vocab_size, (self.rows, self.tokens)).tolist()

    @property
    def keys(self) -> dict[str, Any]:
        """Of every recipe of alignment."""
        return {"prompt_tokens": self.tokens, "response_tokens": self.tokens}

    @property
    def policy_keys(self) -> dict[str, Any]:
        sizes = {"micro_batch_size": MICRO_BATCH, "sample_batch_size": self.rows}
        return {**self.keys, **sizes, "learning_rate": RATE, "epochs": 1, "iterations": 1000}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["1m", "17m"])
    parser.add_argument("--rows", type=int, default=64, help="responses of an iteration")
    parser.add_argument("--tokens", type=int, default=64, help="of a prompt, and of a response")
    parser.add_argument("--rounds", type=int, default=3)


def measure(given: argparse.Namespace, report: Report) -> None:
    cost = report.table(
        "Memory and time of one batch",
        ["model", "work"],
        [
            Column("peak by MLX", "bytes", "lower"),
            Column("memory beside SFT", "x", "lower"),
            Column("peak of the process", "bytes", "lower"),
            Column("per CPU second", "tokens", "higher"),
            Column("time beside SFT", "x", "lower"),
        ],
        [f"Tokens of prompts and responses; an iteration samples, reads and learns them once. SFT is the {SFT}."],
    )
    speed = report.table(
        "Speed of sampling",
        ["model", "work"],
        [
            Column("speed", "tokens/s", "higher"),
            Column("per CPU second", "tokens", "higher"),
            Column("beside generation", "x", "higher"),
        ],
        ["Tokens of responses. A rollout also reads them three more times, for old and reference probabilities, values "
         "and scores."],
    )  # fmt: skip
    for size in given.size:
        for table, works in ((cost, {**COSTS, **(PEERS if given.peers else {})}), (speed, SPEEDS)):
            rows = {name: table.row(size, name) for name in works}
            sides = [
                (row, partial(Worker, turns, name, SIZES[size], given.rows, given.tokens)) for name, row in rows.items()
            ]
            for found in take_turns(sides, given.rounds):
                (_add_cost if table is cost else _add_speed)(list(rows.values()), found)


def _add_cost(rows: list[Row], found: list[Figures | None]) -> None:
    """A round's figures; the first are those of the fine-tuning step."""
    for row, figures in zip(rows, found, strict=True):
        if figures is not None and found[0] is not None:
            row.set(peak_of_the_process=figures["process_peak"])
            if figures["peak"] is not None:
                row.set(peak_by_MLX=figures["peak"], memory_beside_SFT=figures["peak"] / found[0]["peak"])
            row.add(per_CPU_second=figures["tokens"] / figures["cpu_seconds"])
            row.add(time_beside_SFT=figures["seconds"] / found[0]["seconds"])


def _add_speed(rows: list[Row], found: list[Figures | None]) -> None:
    """A round's figures; the first are those of plain generation."""
    for row, figures in zip(rows, found, strict=True):
        if figures is not None and found[0] is not None:
            row.add(speed=figures["tokens"] / figures["seconds"])
            row.add(per_CPU_second=figures["tokens"] / figures["cpu_seconds"])
            row.add(beside_generation=found[0]["seconds"] / figures["seconds"])


def turns(name: str, sets: list[str], rows: int, tokens: int) -> Iterator[Figures]:
    """What the work takes, again and again."""
    once = {**COSTS, **SPEEDS, **PEERS}[name](Work(recipe_files.load("tiny-tale", sets), rows, tokens))
    for _ in itertools.count():
        done: list[float] = []
        found = steps.timed(lambda done=done: done.append(once()))
        peak = None if name in PEERS else found["peak"]
        yield {**found, "tokens": done[0], "peak": peak, "process_peak": process_peak()}


# ---------------------------------------------------------------------- what is measured
Once = Callable[[], float]
"""Does it, and says how many tokens it was."""


def fine_tuning(work: Work) -> Once:
    tuned = _tuned(work)
    step = Step(tuned.model, adam(), 1.0)
    whole = 2 * work.tokens
    tokens = np.random.default_rng(0).integers(1, work.recipe.tokenizer.vocab_size, (work.rows, whole + 1), np.int32)
    pieces = [tokens[first : first + MICRO_BATCH] for first in range(0, work.rows, MICRO_BATCH)]
    batches = [(piece, np.ones((len(piece), whole), np.float32)) for piece in pieces]
    return lambda: step(batches, RATE, KEY).tokens


def ppo(work: Work, critic: str = "separate") -> Once:
    trainer = _ppo(work, critic)

    def once() -> float:
        trainer.iterate(work.prompts)
        return 2.0 * work.rows * work.tokens

    return once


def _ppo(work: Work, critic: str) -> PPO:
    tuned, judge = _tuned(work), _reward_model(work)
    settings = PPORecipe(**work.policy_keys, batch_size=work.rows)
    width = work.recipe.model.hidden_size
    model = ActorCritic(tuned.model, judge.as_critic() if critic == "separate" else width)
    return PPO(model, settings, _scorer(judge), tuned.disabled, batch_sampler(settings, ()), (), 0)


def dr_grpo(work: Work) -> Once:
    tuned, judge = _tuned(work), _reward_model(work)
    prompts = work.prompts[: work.rows // GROUP]
    settings = GroupRecipe(**work.policy_keys, prompts=len(prompts), group_size=GROUP)
    trainer = GroupPolicy(tuned.model, settings, _scorer(judge), tuned.disabled, batch_sampler(settings, ()), (), 0)

    def once() -> float:
        trainer.iterate(prompts)
        return 2.0 * work.rows * work.tokens

    return once


def dpo(work: Work) -> Once:
    tuned = _tuned(work)
    step = MeasuredStep(tuned.model, preference_loss(PreferenceRecipe(**work.keys)))
    rows = lay_out(work.prompts, work.prompts, work.tokens, work.tokens)
    arrays = [array.reshape(-1, 2, *array.shape[1:]) for array in rows]
    arrays.append(np.full((work.rows // 2, 2), -8.0 * work.tokens, np.float32))  # what the reference thinks
    pieces = [[array[i : i + MICRO_BATCH // 2] for array in arrays] for i in range(0, work.rows // 2, MICRO_BATCH // 2)]

    def once() -> float:
        step(pieces, RATE, KEY)
        return 2.0 * work.rows * work.tokens

    return once


def trl_dpo(work: Work) -> Once:
    from .peers.trl_dpo import TrlDpo

    trainer = TrlDpo(planned_config(work.recipe), work.prompts, work.prompts, MICRO_BATCH // 2, RATE)

    def once() -> float:
        trainer.step()
        return 2.0 * work.rows * work.tokens

    return once


def generation(work: Work, temperature: float = 1.0) -> Once:
    """Of the model without an adapter."""
    model = _tuned(work).detach()
    how = GenerateRecipe(temperature=temperature, top_p=1.0, max_new_tokens=work.tokens)
    prompts = work.prompts
    return lambda: _length(generate_batch(model, prompts, how, KEY, batch_size=work.rows))


def _length(texts: list[Any]) -> float:
    return float(sum(len(text.tokens) for text in texts))


def sampling(work: Work) -> Once:
    """What a rollout samples with."""
    trainer, prompts = _ppo(work, "shared"), work.prompts
    return lambda: float(sum(map(len, trainer.sampler(trainer.policy, prompts, 1, KEY))))


def rollout(work: Work) -> Once:
    trainer, prompts = _ppo(work, "separate"), work.prompts
    return lambda: float(trainer.rollout(prompts).responses.rows.mask.sum())


COSTS: dict[str, Callable[[Work], Once]] = {
    SFT: fine_tuning,
    "DPO step": dpo,
    "PPO iteration, separate critic": ppo,
    "PPO iteration, shared critic": partial(ppo, critic="shared"),
    "Dr. GRPO iteration": dr_grpo,
}
PEERS: dict[str, Callable[[Work], Once]] = {"DPO step, TRL": trl_dpo}
SPEEDS: dict[str, Callable[[Work], Once]] = {
    GENERATION: generation,
    f"{GENERATION}, greedy": partial(generation, temperature=0.0),
    "sampling of a rollout, with LoRA": sampling,
    "whole rollout of PPO": rollout,
}


def _tuned(work: Work) -> Tuned:
    model = stages.blueprint(work.recipe)
    return attach(model, new_adapter(model, TuneRecipe(), KEY))


def _reward_model(work: Work) -> RewardModel:
    model = RewardModel(stages.blueprint(work.recipe), work.recipe.model.hidden_size, KEY)
    attach(model, reward_adapter(model, TuneRecipe(), KEY))
    return model


def _scorer(judge: RewardModel) -> Scorer:
    return lambda responses: judge.score(responses.rows, MICRO_BATCH)


if __name__ == "__main__":
    main("rlhf")
