"""What a person sees while a model trains: a bar with loss, speed and memory, and now and then a fresh sample."""

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tinytale_mlx import device
from tinytale_mlx.reports.wording import duration, quantity
from tinytale_mlx.run import Run
from tinytale_mlx.stages import TrainResult
from tinytale_mlx.tokenizers.inspection import visible

from .options import printable
from .pieces import show_pieces

WIDE = 110  # columns that the bar needs to show everything
LINES = 20  # about so many lines of figures where there is no terminal for a bar


class TrainView:
    """Shows events as they come. On a terminal a live bar, elsewhere a line now and then; with `quiet`, on stderr."""

    def __init__(self, quiet: bool, on_start: Callable[[], None]):
        self.console = Console(stderr=quiet, highlight=False)
        self._on_training, self._live = on_start, self.console.is_terminal
        self._working = self.console.status("")
        times = [TimeElapsedColumn(), TextColumn("[dim]left[/dim]"), TimeRemainingColumn(compact=True)]
        columns = [MofNCompleteColumn(), TextColumn("{task.fields[figures]}"), *times]
        self._bar = Progress(BarColumn(bar_width=None), *columns, console=self.console, disable=not self._live)
        self._task: TaskID | None = None
        self._validation = ""
        self._steps = self._next_line = 0
        self._speed: tuple[int, float] | None = None  # which step was the first one after compiling, and when

    def __enter__(self) -> "TrainView":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._working.stop()
        self._bar.stop()

    def notify(self, event: dict[str, Any]) -> None:
        if show := getattr(self, f"_on_{event['event']}", None):
            show(event)

    def _say(self, text: str) -> None:
        """A line of its own; in a file or a pipe it is never broken."""
        self.console.print(text, soft_wrap=not self._live)

    def _on_phase(self, event: dict[str, Any]) -> None:
        self._say(f"[dim]{escape(event['text'])} ...[/dim]")
        if self._live:
            self._working.update(" ")  # an empty text would leave the old one standing
            self._working.start()

    def _on_progress(self, event: dict[str, Any]) -> None:
        self._working.update(f"[dim]{escape(event['text'])}[/dim]")

    def _on_warning(self, event: dict[str, Any]) -> None:
        Console(stderr=True, highlight=False).print(f"tinytale: {escape(event['text'])}", soft_wrap=True)

    def _on_tokenizer(self, event: dict[str, Any]) -> None:
        self._working.stop()
        if event["bytes_per_token"]:
            self._say(f"[dim]{event['bytes_per_token']:.2f} bytes per token; a sentence as the model sees it:[/dim]")
            show_pieces(self.console, [(visible(text), False) for text in event["sample"]])

    def _on_start(self, event: dict[str, Any]) -> None:
        self._working.stop()
        self._on_training()
        self._say(
            f"[bold]{escape(event['run'])}[/bold]: {quantity(event['parameters'])} parameters, vocabulary "
            f"{event['vocab_size']:,}, {_tokens(event['train_tokens'])}, {event['backend']} ({escape(event['device'])})"
        )
        self._say(
            f"{event['steps']:,} steps; effective batch {event['effective_batch_size']:,} x context "
            f"{event['context']:,} = {event['tokens_per_step']:,} tokens per step"
        )
        self._begin(event)

    def _begin(self, event: dict[str, Any]) -> None:
        """The bar, with the steps that are done already."""
        self._steps = event["steps"]
        if event["step"] >= self._steps:
            self._say(f"all {self._steps:,} steps are done already")
            return
        if event["step"]:
            self._say(f"going on from step {event['step']}")
        compiling = "compiling kernels" if device.compiles_kernels() else ""
        if compiling and not self._live:
            self._say("[dim]the first step compiles kernels; on a new machine that takes up to a minute ...[/dim]")
        self._task = self._bar.add_task("", total=self._steps, completed=event["step"], figures=compiling)
        self._bar.start()

    def _on_step(self, event: dict[str, Any]) -> None:
        assert self._task is not None
        figures = self._figures(event)
        self._bar.update(self._task, completed=event["step"], figures=figures)
        if not self._live and event["step"] >= self._next_line:
            self._say(f"step {event['step']:>6}  {figures}  {duration(event['seconds'])}{self._left(event['step'])}")
            every = max(self._steps // LINES, 1)
            self._next_line = (event["step"] // every + 1) * every

    def _left(self, step: int) -> str:
        """What the rest will take, validations and samples included, going by the steps of this session."""
        now = time.monotonic()
        first, since = self._speed = self._speed or (step, now)
        if step in (first, self._steps):
            return ""
        return f", {duration((self._steps - step) * (now - since) / (step - first))} left"

    def _figures(self, event: dict[str, Any]) -> str:
        parts = [f"loss {event['loss']:.3f}{self._validation}"]
        if not math.isnan(event["tokens_per_second"]):
            parts.append(f"{quantity(event['tokens_per_second'])} tokens/s")
        if not self._live or self.console.width >= WIDE:
            parts += [f"lr {event['learning_rate']:.1e}", f"{event['peak_memory_bytes'] / 1e6:,.0f} MB"]
        return "  ".join(parts)

    def _on_overflow(self, event: dict[str, Any]) -> None:
        self._say(
            f"[dim]step {event['step']}: gradients beyond float16, left out; the loss scale of "
            f"{event['loss_scale']:,.0f} is halved[/dim]"
        )

    def _on_nonfinite(self, event: dict[str, Any]) -> None:
        self._say(f"[yellow]step {event['step']}: the {event['what']} is not finite; the step is left out[/yellow]")

    def _on_validation(self, event: dict[str, Any]) -> None:
        self._validation = f", val {event['val_loss']:.3f}"
        self._say(
            f"[dim]step {event['step']}: validation loss {event['val_loss']:.3f}, "
            f"perplexity {event['val_perplexity']:.2f}, {event['val_bits_per_byte']:.3f} bits per byte[/dim]"
        )

    def _on_early_stop(self, event: dict[str, Any]) -> None:
        self._steps = event["step"]
        self._say(
            f"stopped early at step {event['step']:,}: no lower validation loss than {event['best_val_loss']:.3f}, "
            f"that of step {event['best_step']:,}"
        )

    def _on_best(self, event: dict[str, Any]) -> None:
        self._say(f"the model gets the weights of step {event['step']}, whose validation loss is the lowest")

    def _on_sample(self, event: dict[str, Any]) -> None:
        if event["step"] < self._steps:
            self._panel(event["text"], event["step"], style="dim")

    def _panel(self, text: str, step: int, style: str) -> None:
        body = Text(printable(text).strip() or "(nothing)")
        self.console.print(Panel(body, title=f"after {step:,} steps", title_align="left", style=style))

    def finish(self, result: TrainResult) -> None:
        """The closing words: the tales, the figures, and what to type next."""
        progress, run = result.progress, result.run
        if result.status == "interrupted":
            self._interrupted(result)
            return
        for text in result.samples:
            self._panel(text, progress.step, style="green")
        speed = progress.tokens_per_second
        figures = result.figures
        self._say(
            f"validation loss {figures['val_loss']:.3f}, {figures['val_bits_per_byte']:.3f} bits per byte; "
            f"{quantity(progress.tokens)} tokens in {duration(progress.seconds)}"
            + ("" if math.isnan(speed) else f" ({speed:,.0f} tokens/s)")
        )
        self._say_page(run)
        chat = f"tinytale chat {run.reference}"
        self._say(f"the model is in {escape(str(result.model))}; now try:\n  [bold]{escape(chat)}[/bold]")

    def _say_page(self, run: Run) -> None:
        if (page := run.path / "report.html").is_file():
            self._say(f"pictures of it are in {escape(str(page))}")

    def _interrupted(self, result: TrainResult) -> None:
        command = escape(result.run.resume_command)
        self._say(f"saved at step {result.progress.step}; go on with:\n  [bold]{command}[/bold]")


def _tokens(count: int | None) -> str:
    return "training tokens made on the way" if count is None else f"{quantity(count)} training tokens"
