"""`tinytale rlhf`: a model learns what people prefer, by the steps of InstructGPT or by shorter ways."""

import json as json_module
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinytale_mlx import recipe_files, run
from tinytale_mlx.errors import UserError

from .finetune import method_of
from .options import Force, Json, LearningRate, Resume, Runs, Set, TensorBoard, Wandb, WandbModel
from .watching import make_trackers, watch

if TYPE_CHECKING:
    from tinytale_mlx.recipe import AlignRecipe

app = typer.Typer(
    name="rlhf",
    help="Align a model with what people prefer.\n\n"
    "Either `reward` and then `ppo` or `grpo`, or `dpo`, which needs no reward model. Without --data all of them learn "
    "from embedded tales with two endings, of which the kinder one is preferred.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Base = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="A run or a model directory. Default: the latest run, or what it began as."),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", "-d", help="Your own rows: files, folders, globs, a data set; or questions."),
]
Lora = Annotated[bool, typer.Option("--lora", help="Low-rank updates of every matrix. The default.")]
QLora = Annotated[bool, typer.Option("--qlora", help="The same on a model kept in 4 bits.")]
Full = Annotated[bool, typer.Option("--full", help="All weights.")]
Rank = Annotated[int | None, typer.Option("--rank", help="Of the updates; --set tune.rank=N.")]
Name = Annotated[str | None, typer.Option("--name", "-n", help="Name of the run. Default: MODEL-KIND.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimiser steps.")]
Iterations = Annotated[int | None, typer.Option("--steps", help="Rounds of writing and learning.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Of adapters, order of rows and responses.")]
RewardModel = Annotated[
    str | None,
    typer.Option("--reward-model", metavar="RUN", help="Score with this reward model. Default: the base's newest."),
]
Reward = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        help="Score with length:N, contains:WORD, regex:PATTERN, answer, or FILE.py:FUNCTION; repeat it for a sum.",
    ),
]


@app.command()
def reward(
    base: Base = None,
    data: Data = None,
    lora: Lora = False,
    qlora: QLora = False,
    full: Full = False,
    rank: Rank = None,
    name: Name = None,
    resume: Resume = False,
    steps: Steps = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Prompts, with all their responses.")] = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    force: Force = False,
    set_: Set = None,
    wandb: Wandb = None,
    wandb_model: WandbModel = False,
    tensorboard: TensorBoard = False,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Train a reward model: it says how good a response is.

    Rows are `prompt`, `chosen` and `rejected`, as text or as messages; two dialogues that begin alike (hh-rlhf); or
    `prompt` and `responses`, the best first.

    Examples:

        tinytale rlhf reward

        tinytale rlhf reward my-run --data comparisons.jsonl --full
    """
    flags = {"train.steps": steps, "train.batch_size": batch_size, "train.learning_rate": learning_rate}
    _align(
        "reward", base, resume, name, runs, json, force, make_trackers(wandb, wandb_model, tensorboard),
        _overrides(data, _method(lora, qlora, full), set_, {**flags, "tune.rank": rank, "seed": seed}),
    )  # fmt: skip


@app.command()
def ppo(
    base: Base = None,
    data: Data = None,
    reward_model: RewardModel = None,
    reward: Reward = None,
    lora: Lora = False,
    qlora: QLora = False,
    full: Full = False,
    rank: Rank = None,
    name: Name = None,
    resume: Resume = False,
    steps: Iterations = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Responses per iteration.")] = None,
    learning_rate: LearningRate = None,
    beta: Annotated[float | None, typer.Option("--beta", help="What a nat of KL costs, at the start.")] = None,
    kl_target: Annotated[float | None, typer.Option("--kl-target", help="Nats that beta is steered to.")] = None,
    seed: Seed = None,
    force: Force = False,
    set_: Set = None,
    wandb: Wandb = None,
    wandb_model: WandbModel = False,
    tensorboard: TensorBoard = False,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """PPO: the model writes, a reward model scores it, a critic foresees the score, and a KL penalty holds it back.

    Examples:

        tinytale rlhf ppo

        tinytale rlhf ppo my-run --reward-model my-run-reward --kl-target 6

        tinytale rlhf ppo --resume
    """
    flags = {
        "ppo.iterations": steps, "ppo.batch_size": batch_size, "ppo.learning_rate": learning_rate, "ppo.beta": beta,
        "ppo.kl_target": kl_target, "score.reward_model": reward_model, "tune.rank": rank, "seed": seed,
    }  # fmt: skip
    _align(
        "ppo", base, resume, name, runs, json, force, make_trackers(wandb, wandb_model, tensorboard),
        _overrides(data, _method(lora, qlora, full), set_, flags, reward),
    )  # fmt: skip


@app.command()
def dpo(
    base: Base = None,
    data: Data = None,
    method: Annotated[
        str | None, typer.Option("--method", help="dpo, cdpo, ipo, hinge, orpo, simpo or kto. Default: dpo.")
    ] = None,
    reward_model: Annotated[
        str | None, typer.Option("--reward-model", metavar="RUN", help="Score the responses before and after with it.")
    ] = None,
    reward: Reward = None,
    lora: Lora = False,
    qlora: QLora = False,
    full: Full = False,
    rank: Rank = None,
    name: Name = None,
    resume: Resume = False,
    steps: Steps = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Pairs.")] = None,
    learning_rate: LearningRate = None,
    beta: Annotated[float | None, typer.Option("--beta", help="How much the log-probabilities weigh.")] = None,
    seed: Seed = None,
    force: Force = False,
    set_: Set = None,
    wandb: Wandb = None,
    wandb_model: WandbModel = False,
    tensorboard: TensorBoard = False,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """DPO and its kin: the model learns from pairs of responses directly. KTO learns from single ones with a label.

    Examples:

        tinytale rlhf dpo

        tinytale rlhf dpo my-run --data comparisons.jsonl --method ipo --beta 0.2

        tinytale rlhf dpo --reward-model my-run-reward
    """
    flags = {
        "dpo.method": "dpo" if method == "cdpo" else method,
        "dpo.smoothing": 0.1 if method == "cdpo" else None,
        "train.steps": steps, "train.batch_size": batch_size, "train.learning_rate": learning_rate, "dpo.beta": beta,
        "score.reward_model": reward_model, "tune.rank": rank, "seed": seed,
    }  # fmt: skip
    _align(
        "dpo", base, resume, name, runs, json, force, make_trackers(wandb, wandb_model, tensorboard),
        _overrides(data, _method(lora, qlora, full), set_, flags, reward),
    )  # fmt: skip


@app.command()
def grpo(
    base: Base = None,
    data: Data = None,
    method: Annotated[
        str | None, typer.Option("--method", help="dr_grpo, grpo, dapo, gspo or rloo. Default: dr_grpo.")
    ] = None,
    reward_model: RewardModel = None,
    reward: Reward = None,
    lora: Lora = False,
    qlora: QLora = False,
    full: Full = False,
    rank: Rank = None,
    name: Name = None,
    resume: Resume = False,
    steps: Iterations = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Prompts per iteration.")] = None,
    group_size: Annotated[int | None, typer.Option("--group-size", help="Responses to each prompt.")] = None,
    learning_rate: LearningRate = None,
    beta: Annotated[float | None, typer.Option("--beta", help="What a nat of KL costs.")] = None,
    seed: Seed = None,
    force: Force = False,
    set_: Set = None,
    wandb: Wandb = None,
    wandb_model: WandbModel = False,
    tensorboard: TensorBoard = False,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """GRPO and its kin: several responses to a prompt are compared with each other; there is no critic.

    Examples:

        tinytale rlhf grpo

        tinytale rlhf grpo my-run --reward contains:smiled --method rloo

        tinytale rlhf grpo my-run --data questions --reward answer
    """
    flags = {
        "grpo.method": method, "grpo.iterations": steps, "grpo.prompts": batch_size, "grpo.group_size": group_size,
        "grpo.learning_rate": learning_rate, "grpo.kl": beta, "score.reward_model": reward_model, "tune.rank": rank,
        "seed": seed,
    }  # fmt: skip
    _align(
        "grpo", base, resume, name, runs, json, force, make_trackers(wandb, wandb_model, tensorboard),
        _overrides(data, _method(lora, qlora, full), set_, flags, reward),
    )  # fmt: skip


# ---------------------------------------------------------------------- what they share
def _method(lora: bool, qlora: bool, full: bool) -> list[str]:
    return method_of({"lora": lora, "qlora": qlora, "full": full})


def _overrides(
    data: list[str] | None,
    method: list[str],
    set_: list[str] | None,
    flags: dict[str, Any],
    reward: list[str] | None = None,
) -> list[str]:
    return [
        *method,
        *([f"data.source={json_module.dumps(data[0] if len(data) == 1 else data)}"] if data else []),
        *([f"score.functions={json_module.dumps(reward)}"] if reward else []),
        *(set_ or []),
        *(f"{key}={value}" for key, value in flags.items() if value is not None),
    ]


def _align(
    kind: str, base: str | None, resume: bool, name: str | None, runs: Path, json: bool, force: bool, trackers: Any,
    overrides: list[str],
) -> None:  # fmt: skip
    from tinytale_mlx import stages

    from .rlhf_view import AlignView

    recipe = _recipe(kind, base, overrides, resume, name, runs)
    watch(partial(stages.align, recipe, name, resume, runs, force=force, trackers=trackers), json, AlignView)


def _recipe(
    kind: str, base: str | None, overrides: list[str], resume: bool, name: str | None, runs: Path
) -> "AlignRecipe":
    """A new recipe, or that of the run that is resumed, with the overrides."""
    from tinytale_mlx import stages

    if not resume:
        return stages.align_recipe(kind, base, overrides, runs)
    if base is not None:
        raise UserError(f"a run that is resumed has its model already; leave out {base}, or name the run with --name")
    this = run.find(name, runs)
    if this.kind != kind:
        raise UserError(f"the run {this.name} is one of `tinytale {this.command}`; `{this.resume_command}` goes on")
    return recipe_files.load_align(this.recipe_path, overrides)
