"""What a person sees while a model trains: a bar with loss, speed and memory, and now and then a fresh sample."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tinytale_mlx.recipe import Recipe
from tinytale_mlx.stages import TrainResult

from .options import duration, size


class StopSignals:
    """Ctrl-C and SIGTERM. Before training they end the program; during it they ask for a save; twice, they insist."""

    def __init__(self) -> None:
        self._armed = False
        self._received: int | None = None

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def arm(self) -> None:
        self._armed = True

    def requested(self) -> bool:
        return self._received is not None

    @property
    def exit_code(self) -> int:
        return 128 + (self._received or signal.SIGINT)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._armed or self._received is not None:
            if number == signal.SIGTERM:
                raise SystemExit(128 + number)
            raise KeyboardInterrupt
        self._received = number
        # Not print(): the handler may have interrupted one.
        os.write(sys.stderr.fileno(), b"\nfinishing the step and saving; once more to quit at once\n")


class TrainView:
    """Shows events as they come. On a terminal a live bar, elsewhere a line now and then; with `quiet`, on stderr."""

    def __init__(self, recipe: Recipe, quiet: bool, on_start: Callable[[], None]):
        self.console = Console(stderr=quiet, highlight=False)
        self._recipe, self._arm = recipe, on_start
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._validation = ""

    def __enter__(self) -> "TrainView":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def notify(self, event: dict[str, Any]) -> None:
        if show := getattr(self, f"_on_{event['event']}", None):
            show(event)

    def _on_phase(self, event: dict[str, Any]) -> None:
        self.console.print(f"[dim]{event['text']} …[/dim]")

    def _on_start(self, event: dict[str, Any]) -> None:
        self._arm()
        self.console.print(
            f"[bold]{event['run']}[/bold]: {event['parameters']:,} parameters, vocabulary {event['vocab_size']:,}, "
            f"{size(event['train_tokens'])} training tokens, {event['tokens_per_step']:,} per step, "
            f"{event['backend']} ({event['device']})"
        )
        if event["step"]:
            self.console.print(f"going on from step {event['step']}")
        if event["backend"] == "cpu":
            self.console.print("[dim]the first step on a machine compiles its kernels, which can take a minute …[/dim]")
        self._task = self._bar.add_task("training", total=event["steps"], completed=event["step"], figures="")
        self._bar.start()

    def _on_step(self, event: dict[str, Any]) -> None:
        assert self._task is not None
        figures = (
            f"loss {event['loss']:.3f}{self._validation} · lr {event['learning_rate']:.1e} · "
            f"{event['tokens_per_second']:,.0f} tokens/s · {event['peak_memory_bytes'] / 1e6:,.0f} MB"
        )
        self._bar.update(self._task, completed=event["step"], figures=figures)
        if not self.console.is_terminal and event["step"] % max(self._recipe.train.steps // 20, 1) == 0:
            self.console.print(f"step {event['step']:>6}  {figures}  {duration(event['seconds'])}", soft_wrap=True)

    def _on_validation(self, event: dict[str, Any]) -> None:
        self._validation = f" · val {event['val_loss']:.3f}"
        self.console.print(
            f"[dim]step {event['step']}: validation loss {event['val_loss']:.3f}, "
            f"perplexity {event['val_perplexity']:.2f}, {event['val_bits_per_byte']:.3f} bits per byte[/dim]"
        )

    def _on_sample(self, event: dict[str, Any]) -> None:
        if event["step"] < self._recipe.train.steps:
            self.console.print(Panel(escape(event["text"].strip()), title=f"after {event['step']} steps", style="dim"))

    def finish(self, result: TrainResult) -> None:
        """The closing words: the tales, the figures, and what to type next."""
        progress = result.progress
        if result.status == "interrupted":
            self.console.print(
                f"saved at step {progress.step}; go on with:\n  "
                f"[bold]tinytale train --resume --name {result.run.name}[/bold]"
            )
            return
        for text in result.samples:
            self.console.print(Panel(escape(text.strip()), title=f"after {progress.step} steps", border_style="green"))
        self.console.print(
            f"validation loss {result.figures['val_loss']:.3f}, {result.figures['val_bits_per_byte']:.3f} bits per byte; "
            f"{size(progress.tokens)} tokens in {duration(progress.seconds)} ({progress.tokens_per_second:,.0f} tokens/s)"
        )
        self.console.print(f"the model is in {result.run.model}; now try:\n  [bold]tinytale chat[/bold]")
