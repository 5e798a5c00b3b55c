"""`tinytale plan`: will it fit, and how long will it take?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tinytale_mlx import recipe_files, run
from tinytale_mlx.errors import UserError
from tinytale_mlx.reports.wording import quantity

from .finetune import METHODS
from .options import Json, Runs, Set, print_json

if TYPE_CHECKING:
    from tinytale_mlx.planning.forecast import Forecast
    from tinytale_mlx.recipe import FinetuneRecipe
    from tinytale_mlx.stages.planning import Plan
    from tinytale_mlx.stages.tune_planning import TuneForecast, TunePlan

PARTS = ["weights", "gradients", "optimizer", "average", "activations", "logits", "temporary"]


def plan(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A built-in recipe, a YAML file, or a run. Default: tale, the demo."),
    ] = None,
    chip: Annotated[
        list[str] | None,
        typer.Option("--chip", help="Such as m2-8gb or m4-max; `all` for all. Default: this machine, and m2-8gb."),
    ] = None,
    finetune: Annotated[
        str | None,
        typer.Option("--finetune", metavar="METHOD", help="Of tuning this run or model: lora, qlora, ..., full."),
    ] = None,
    set_: Set = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Parameters, FLOPs, the peak of training memory, the largest batch and the hours, before anything is trained.

    Figures for Apple's chips are estimates from published ones.

    Examples:

        tinytale plan

        tinytale plan tiny-llm --chip m2-8gb --set train.gradient_checkpointing=block

        tinytale plan lillm --chip all --json

        tinytale plan --finetune qlora
    """
    from tinytale_mlx import stages

    tuning = _tuning(recipe, finetune, set_ or [], runs)
    if tuning is not None:
        _show_tuning(stages.plan_finetune(tuning, chip, runs), json)
        return
    found = stages.plan(recipe, set_, chip, runs)
    if json:
        print_json(found.to_json())
        return
    console = Console(highlight=False)
    _say_what(console, found)
    console.print(_memory(found.forecasts))
    console.print()
    console.print(_machines(found.forecasts))
    _say_basis(console, found.forecasts)
    _say_what_helps(console, found.forecasts)


def _tuning(what: str | None, method: str | None, overrides: list[str], runs: Path) -> "FinetuneRecipe | None":
    """The recipe of a fine-tuning, where one is asked about: of this model by that method, or of a run that is one."""
    from tinytale_mlx import stages

    if method is not None:
        if method not in METHODS:
            raise UserError(f"there is no method {method!r} to fine-tune with; there are {', '.join(METHODS)}")
        return stages.finetune_recipe(what, [*METHODS[method], *overrides], runs)
    if what is None or what in recipe_files.names():
        return None
    there = next((one for one in (run.Run(runs / what), run.Run(Path(what))) if one.is_finetune()), None)
    return None if there is None else recipe_files.load_finetune(there.recipe_path, overrides)


def _show_tuning(plan: "TunePlan", json: bool) -> None:
    if json:
        print_json(plan.to_json())
        return
    console, recipe = Console(highlight=False), plan.recipe
    train, quantized = recipe.train, ", quantized" if recipe.tune.quantize else ""
    console.print(
        f"[bold]{escape(recipe.base)}[/bold]: {plan.parameters:,} parameters; method {recipe.tune.method}{quantized}\n"
        f"{train.steps:,} steps of {train.accumulate} x {train.batch_size} examples of up to {plan.context:,} tokens\n",
        soft_wrap=True,
    )
    table = _machine_table("usable, MB", "peak, MB", "fits", "tokens/s", "time")
    for one in plan.forecasts:
        table.add_row(escape(one.machine.name), _mb(one.machine.usable), _mb(one.peak), *_fits_and_speed(one))
    console.print(table)
    _say_basis(console, plan.forecasts)


def _say_what(console: Console, plan: "Plan") -> None:
    recipe, train, flops = plan.recipe, plan.recipe.train, plan.flops
    again = f", and {quantity(flops.recomputed)} computed again" if flops.recomputed else ""
    console.print(
        f"[bold]{escape(recipe.name)}[/bold]: {plan.parameters:,} parameters; vocabulary {plan.vocab_size:,} "
        f"({escape(plan.vocab_from)})\n"
        f"FLOPs per token: {quantity(flops.forward)} forward, {quantity(flops.training)} in training{again}\n"
        f"{train.steps:,} steps of {train.accumulate} x {train.batch_size} x {recipe.model.context} tokens: "
        f"{quantity(plan.tokens)} tokens\n",
        soft_wrap=True,
    )


def _memory(forecasts: list["Forecast"]) -> Table:
    """What takes the memory: the same for all Macs, so one column does."""
    columns = {one.machine.backend.name: one for one in reversed(forecasts)}
    heads = {"cpu": "CPU, MB", "gpu": "Mac's GPU, MB"}
    table = Table("peak memory", *reversed([heads[name] for name in columns]), box=None, header_style="bold")
    shown = [one.memory.to_json() for one in reversed(columns.values())]
    for part in PARTS:
        if any(memory[part] for memory in shown):
            table.add_row(part, *(_mb(memory[part]) for memory in shown))
    table.add_row("[bold]peak[/bold]", *(f"[bold]{_mb(memory['peak'])}[/bold]" for memory in shown))
    table.add_row("reached in", *(f"the {memory['moment']}" for memory in shown))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _machines(forecasts: list["Forecast"]) -> Table:
    table = _machine_table("usable, MB", "largest batch", "fits", "tokens/s", "time")
    for one in forecasts:
        batch = f"{one.largest_batch:,}"
        table.add_row(escape(one.machine.name), _mb(one.machine.usable), batch, *_fits_and_speed(one))
    return table


def _machine_table(*heads: str) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("machine", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _fits_and_speed(one: "Forecast | TuneForecast") -> list[str]:
    low, high = one.speed.tokens_per_second
    fits = "[green]yes[/green]" if one.fits else "[red]no[/red]"
    return [fits, f"{quantity(low)} to {quantity(high)}", _span(*one.speed.hours)]


def _say_basis(console: Console, forecasts: "Sequence[Forecast | TuneForecast]") -> None:
    for line in dict.fromkeys(one.machine.basis for one in forecasts):
        console.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)


def _say_what_helps(console: Console, forecasts: list["Forecast"]) -> None:
    """For the machine that has least: what to set, if it has to be, and what else there is."""
    scarce = min(forecasts, key=lambda one: one.machine.usable - one.memory.peak)
    if not scarce.fits:
        name = escape(scarce.machine.name)
        if scarce.remedy:
            console.print(
                f"\n[bold]To make it fit on {name}:[/bold] --set {' --set '.join(scarce.remedy)}", soft_wrap=True
            )
        else:
            console.print(f"\n[bold]Nothing here makes it fit on {name};[/bold] choose a smaller model or context.")
    if scarce.suggestions:
        table = Table(
            f"what saves memory ({escape(scarce.machine.name)})", "MB", "costs", box=None, header_style="bold"
        )
        table.columns[1].justify = "right"
        for one in scarce.suggestions:
            table.add_row(one.set, _mb(one.saves), one.costs)
        console.print()
        console.print(table)


def _span(low: float, high: float) -> str:
    """Two numbers of hours, in the unit that suits the larger one."""
    units = (("days", 24, 48), ("hours", 1, 2), ("minutes", 1 / 60, 1 / 30), ("seconds", 1 / 3600, 0))
    unit, hours = next((unit, hours) for unit, hours, least in units if high >= least)
    digits = ".0f" if high / hours >= 10 else ".1f"
    return f"{low / hours:,{digits}} to {high / hours:,{digits}} {unit}"


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f}"
