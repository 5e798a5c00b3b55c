"""`tinytale rlhf`: a model learns what people prefer, by the steps of InstructGPT or by shorter ways."""

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinytale_mlx import recipe_files
from tinytale_mlx.errors import UserError

from .finetune import method_of, run_to_resume
from .groups import Scoring, Tuning, spread
from .options import own_rows
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
Steps = Annotated[int | None, typer.Option("--steps", help="Optimiser steps.")]
Iterations = Annotated[int | None, typer.Option("--steps", help="Rounds of writing and learning.")]


@app.command()
@spread
def reward(
    base: Base = None,
    data: Data = None,
    steps: Steps = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Prompts, with all their responses.")] = None,
    *,
    how: Tuning,
) -> None:
    """Train a reward model: it says how good a response is.

    Rows are `prompt`, `chosen` and `rejected`, as text or as messages; two dialogues that begin alike (hh-rlhf); or
    `prompt` and `responses`, the best first.

    Examples:

        tinytale rlhf reward

        tinytale rlhf reward my-run --data comparisons.jsonl --full
    """
    flags = {"train.steps": steps, "train.batch_size": batch_size, "train.learning_rate": how.learning_rate}
    _align("reward", base, data, flags, how)


@app.command()
@spread
def ppo(
    base: Base = None,
    data: Data = None,
    steps: Iterations = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Responses per iteration.")] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="What a nat of KL costs, at the start.")] = None,
    kl_target: Annotated[float | None, typer.Option("--kl-target", help="Nats that beta is steered to.")] = None,
    *,
    how: Tuning,
    scoring: Scoring,
) -> None:
    """PPO: the model writes, a reward model scores it, a critic foresees the score, and a KL penalty holds it back.

    Examples:

        tinytale rlhf ppo

        tinytale rlhf ppo my-run --reward-model my-run-reward --kl-target 6

        tinytale rlhf ppo --resume
    """
    flags = {
        "ppo.iterations": steps, "ppo.batch_size": batch_size, "ppo.learning_rate": how.learning_rate, "ppo.beta": beta,
        "ppo.kl_target": kl_target,
    }  # fmt: skip
    _align("ppo", base, data, flags, how, scoring)


@app.command()
@spread
def dpo(
    base: Base = None,
    data: Data = None,
    method: Annotated[
        str | None, typer.Option("--method", help="dpo, cdpo, ipo, hinge, orpo, simpo or kto. Default: dpo.")
    ] = None,
    steps: Steps = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Pairs.")] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="How much the log-probabilities weigh.")] = None,
    *,
    how: Tuning,
    scoring: Scoring,
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
        "train.steps": steps, "train.batch_size": batch_size, "train.learning_rate": how.learning_rate,
        "dpo.beta": beta,
    }  # fmt: skip
    _align("dpo", base, data, flags, how, scoring)


@app.command()
@spread
def grpo(
    base: Base = None,
    data: Data = None,
    method: Annotated[
        str | None, typer.Option("--method", help="dr_grpo, grpo, dapo, gspo or rloo. Default: dr_grpo.")
    ] = None,
    steps: Iterations = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Prompts per iteration.")] = None,
    group_size: Annotated[int | None, typer.Option("--group-size", help="Responses to each prompt.")] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="What a nat of KL costs.")] = None,
    *,
    how: Tuning,
    scoring: Scoring,
) -> None:
    """GRPO and its kin: several responses to a prompt are compared with each other; there is no critic.

    Examples:

        tinytale rlhf grpo

        tinytale rlhf grpo my-run --reward contains:smiled --method rloo

        tinytale rlhf grpo my-run --data questions --reward answer
    """
    flags = {
        "grpo.method": method, "grpo.iterations": steps, "grpo.prompts": batch_size, "grpo.group_size": group_size,
        "grpo.learning_rate": how.learning_rate, "grpo.kl": beta,
    }  # fmt: skip
    _align("grpo", base, data, flags, how, scoring)


# ---------------------------------------------------------------------- what they share
def _align(
    kind: str,
    base: str | None,
    data: list[str] | None,
    flags: dict[str, Any],
    how: Tuning,
    scoring: Scoring | None = None,
) -> None:
    from tinytale_mlx import stages

    from .rlhf_view import AlignView

    scoring = scoring or Scoring()
    overrides = [
        *method_of({"lora": how.lora, "qlora": how.qlora, "full": how.full}),
        *own_rows(data),
        *([f"score.functions={json.dumps(scoring.reward)}"] if scoring.reward else []),
        *how.overrides({**flags, "score.reward_model": scoring.reward_model, "tune.rank": how.rank, "seed": how.seed}),
    ]
    trackers = make_trackers(how)
    recipe = _recipe(kind, base, overrides, how)
    align = partial(stages.align, recipe, how.name, how.resume, how.runs, force=how.force, trackers=trackers)
    watch(align, how.json, AlignView)


def _recipe(kind: str, base: str | None, overrides: list[str], how: Tuning) -> "AlignRecipe":
    """A new recipe, or that of the run that is resumed, with the overrides."""
    from tinytale_mlx import stages

    if not how.resume:
        return stages.align_recipe(kind, base, overrides, how.runs)
    this = run_to_resume(base, how)
    if this.kind != kind:
        raise UserError(f"the run {this.name} is one of `tinytale {this.command}`; `{this.resume_command}` goes on")
    return recipe_files.load_align(this.recipe_path, overrides)
