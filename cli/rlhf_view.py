"""What a person sees while a model is aligned: score, KL and β in the bar, and texts before and after side by side."""

import math
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tinytale_mlx.reports.wording import duration, quantity
from tinytale_mlx.stages import AlignResult

from .options import printable
from .train_view import TrainView


class AlignView(TrainView):
    def _on_start(self, event: dict[str, Any]) -> None:
        self._working.stop()
        self._on_training()
        self._say(
            f"[bold]{escape(event['run'])}[/bold]: {quantity(event['trained_parameters'])} of "
            f"{quantity(event['parameters'])} parameters learn ({event['method']}), {event['backend']} "
            f"({escape(event['device'])})"
        )
        self._say(
            f"{event['steps']:,} steps, {event['prompts']:,} prompts; up to {event['prompt_tokens']} tokens of prompt "
            f"and {event['response_tokens']} of response"
        )
        self._begin(event)

    def _figures(self, event: dict[str, Any]) -> str:
        names = {"score": ".2f", "kl": ".2f", "beta": ".3f", "response_tokens": ".0f", "accuracy": ".2f"}
        shown = {"response_tokens": "tokens", "kl": "KL", "beta": "β"}
        parts = [f"{shown.get(name, name)} {event[name]:{form}}" for name, form in names.items() if name in event]
        if "score" not in event:
            parts = [f"loss {event['loss']:.3f}", *parts]
        elif not math.isnan(event["tokens_per_second"]):
            parts.append(f"{quantity(event['tokens_per_second'])} tokens/s")
        return "  ".join(parts)

    def _on_validation(self, event: dict[str, Any]) -> None:
        names = ("score", "kl", "perplexity", "accuracy", "margin", "val_loss", "val_accuracy", "val_margin")
        said = ", ".join(
            f"{name.removeprefix('val_')} {event[name]:.2f}"
            for name in names
            if name in event and not (name == "val_loss" and "score" in event)
        )
        self._say(f"[dim]step {event['step']}: held out, {said}[/dim]")

    def _on_sample(self, event: dict[str, Any]) -> None:
        title = f"after {event['step']:,} steps"
        if "before" not in event:
            self._panel(event["text"], event["step"], style="dim")
            return
        self._say(f"[dim]{escape(printable(event['prompt']).strip())}[/dim]")
        sides = (("before", event["before"]), (title, event["text"]))
        table = Table(expand=True, show_lines=True)
        for name, _ in sides:
            table.add_column(name, ratio=1)
        table.add_row(*(Text(printable(text).strip() or "(nothing)") for _, text in sides))
        self.console.print(table)

    def finish(self, result: AlignResult) -> None:  # type: ignore[override]
        """The closing words: what has changed, and what to type next."""
        progress, run = result.progress, result.run
        if result.status == "interrupted":
            self._interrupted(result)
            return
        self._say(self._changes(result))
        speed = "" if math.isnan(result.tokens_per_second) else f" ({result.tokens_per_second:,.0f} tokens/s)"
        self._say(
            f"{progress.step:,} steps in {duration(progress.seconds)}{speed}, {result.peak_memory_bytes / 1e6:,.0f} MB"
        )
        self._say_page(run)
        then = "rlhf ppo --reward-model" if result.kind == "reward" else "chat"
        self._say(
            f"the {'reward model' if result.kind == 'reward' else 'model'} is in {escape(str(result.model))}; now try:"
            f"\n  [bold]{escape(f'tinytale {then} {run.reference}')}[/bold]"
        )

    def _changes(self, result: AlignResult) -> str:
        now, before = result.figures, result.before
        if result.kind == "reward":
            return (
                f"of {now['pairs']:,} held-out pairs {now['accuracy']:.1%} are in the right order, "
                f"{now['margin']:.2f} apart"
            )
        parts = [f"KL {now['kl']:.2f} nats per response", *self._change("perplexity to the base", "perplexity", result)]
        if "score" in before:
            parts = [*self._change("score", "score", result), *parts]
        return "held-out prompts: " + ", ".join(parts)

    def _change(self, said: str, name: str, result: AlignResult) -> list[str]:
        return [f"{said} {result.before[name]:.2f} -> {result.figures[name]:.2f}"]
