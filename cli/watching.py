"""What all commands that train do around it: show it, let a signal stop it, and say what came of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from tinytale_mlx.errors import UserError

from .groups import Training
from .options import print_json

if TYPE_CHECKING:
    from tinytale_mlx.stages import Tracker, TrainResult

    from .train_view import TrainView

    Train = Callable[[Callable[[dict[str, Any]], None], Callable[[], bool]], TrainResult]
    """From what takes the events, and what tells whether to stop, to the result."""


def watch(train: "Train", json: bool, view_class: "type[TrainView] | None" = None) -> None:
    """Train with a live view, by default that of a training. Raises typer.Exit where a signal ended it, which can be
    gone on with."""
    from .signals import StopSignals
    from .train_view import TrainView

    view_class = view_class or TrainView
    with StopSignals() as signals, view_class(quiet=json, on_start=signals.arm) as view:
        try:
            result = train(view.notify, signals.requested)
        except KeyboardInterrupt:
            typer.echo("stopped at once; what is saved is the last checkpoint, if there is one", err=True)
            raise
    if json:
        print_json(result.to_json())
    else:
        view.finish(result)
    if result.status == "interrupted":
        raise typer.Exit(signals.exit_code)


def make_trackers(how: Training) -> "list[Tracker]":
    """The run's own page, and those that are asked for. Raises UserError where their package is missing, or where the
    project is."""
    if how.wandb_model and not how.wandb:
        raise UserError("--wandb-model goes with --wandb PROJECT, which says where the model is uploaded to")
    from tinytale_mlx import stages

    from .tensorboard_log import TensorBoardTracker
    from .wandb_log import WandbTracker

    return [
        stages.Report(),
        *([WandbTracker(how.wandb, how.wandb_model)] if how.wandb else []),
        *([TensorBoardTracker()] if how.tensorboard else []),
    ]
