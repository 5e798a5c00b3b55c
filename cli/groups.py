"""Options that belong together, as dataclasses: a command takes the whole group as one parameter.

Typer makes its options from a function's signature. `spread` shows it one in which each group has become its fields.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from tinytale_mlx import run

from .options import Json, Name, Runs, Set


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of each dataclass among its parameters as parameters of their own."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if dataclasses.is_dataclass(parameter.annotation)
    }

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        command(**given)

    def parameters() -> Iterator[inspect.Parameter]:
        for name, parameter in signature.parameters.items():
            if name not in groups:
                yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                continue
            for field in dataclasses.fields(groups[name]):
                kind = inspect.Parameter.KEYWORD_ONLY
                yield inspect.Parameter(field.name, kind, default=field.default, annotation=field.type)

    called.__dict__["__signature__"] = signature.replace(parameters=list(parameters()))
    return called


@dataclasses.dataclass
class Sampling:
    """How texts are drawn; `settings.with_options` lays what was given over a model's own settings."""

    temperature: Annotated[
        float | None, typer.Option("--temperature", "-t", help="0 is greedy. Default: the recipe's.")
    ] = None
    top_k: Annotated[int | None, typer.Option("--top-k", help="Choose among the k likeliest tokens; 0 for all.")] = None
    top_p: Annotated[float | None, typer.Option("--top-p", help="Choose among the likeliest tokens that sum to p.")] = (
        None
    )
    min_p: Annotated[
        float | None, typer.Option("--min-p", help="Leave out what is less than this share of the likeliest.")
    ] = None
    repetition_penalty: Annotated[
        float | None,
        typer.Option("--repetition-penalty", help="Above 1, what is there already becomes less likely."),
    ] = None
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", "-m", help="Stop after so many tokens.")] = (
        None
    )
    stop: Annotated[list[str] | None, typer.Option("--stop", help="Stop before this text; repeat it for several.")] = (
        None
    )
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other key of the recipe's `generate`, as no_repeat_ngram=3."
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value not in (None, [])}


@dataclasses.dataclass
class Training:
    """What all commands that train can be told."""

    name: Name = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run --name, or with the latest, from its last checkpoint.")
    ] = False
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="The highest rate.")] = None
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of all that is random: weights, adapters, order of data, samples.")
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Try it even if it will not fit into memory.")] = False
    set_: Set = None
    wandb: Annotated[
        str | None, typer.Option("--wandb", metavar="PROJECT", help="Log to Weights & Biases as well (an extra).")
    ] = None
    wandb_model: Annotated[bool, typer.Option("--wandb-model", help="With --wandb: upload the model, too.")] = False
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard as well, in the run's folder (an extra).")
    ] = False
    runs: Runs = run.ROOT
    json: Json = False

    def overrides(self, flags: dict[str, Any]) -> list[str]:
        """--set, and the flags that were given, by the keys of a recipe that they stand for."""
        return [*(self.set_ or []), *(f"{key}={value}" for key, value in flags.items() if value is not None)]


@dataclasses.dataclass
class Tuning(Training):
    """What commands that go on from a trained model can be told besides."""

    lora: Annotated[bool, typer.Option("--lora", help="Low-rank updates of every matrix. The default.")] = False
    qlora: Annotated[bool, typer.Option("--qlora", help="The same on a model kept in 4 bits.")] = False
    full: Annotated[bool, typer.Option("--full", help="All weights.")] = False
    rank: Annotated[int | None, typer.Option("--rank", help="Of the updates; --set tune.rank=N.")] = None


@dataclasses.dataclass
class Scoring:
    """What says how good a response is."""

    reward_model: Annotated[
        str | None,
        typer.Option(
            "--reward-model", metavar="RUN", help="Score with this reward model. Default of ppo, grpo: the newest."
        ),
    ] = None
    reward: Annotated[
        list[str] | None,
        typer.Option(
            "--reward",
            help="Score with length:N, contains:WORD, regex:PATTERN, answer, or FILE.py:FUNCTION; repeat it for a sum.",
        ),
    ] = None
