"""How much memory does a step take, for each recipe and as batch and context grow, and did the planner know it?

    tinytale bench forecast
    tinytale bench forecast --recipe tale stories --batches 1 8 32

A recipe is measured as it is, without its memory switches (plain), and with all that leave the mathematics as it is:
blocks computed again, the loss in chunks, row by row. Each measurement is a process of its own, which takes two steps
on random tokens; the peak is MLX's count, and the forecast that of `tinytale plan` for this machine.
"""

import argparse

from tinytale_mlx import recipe_files
from tinytale_mlx.recipe import Recipe

from . import steps
from .apart import Figures, call, excused
from .results import Column, Line, Report, Row
from .runner import main

PLAIN = ["train.gradient_checkpointing=none", "train.loss_chunk_tokens=null"]
ALL_ON = ["train.gradient_checkpointing=block", "train.loss_chunk_tokens=256"]
REDUCED = ["model.context=128", "train.batch_size=4", "train.accumulate=1", "model.layers=2"]
COLUMNS = [
    Column("forecast", "bytes"),
    Column("measured", "bytes", "lower"),
    Column("measured beside forecast", "x"),
    Column("of plain", "share", "lower"),
]
QUICK = {
    "recipe": ["tale", "shakespeare", "tiny-tale"], "set": REDUCED, "batches": [1, 8], "contexts": [32, 256],
    "grown": "tale",
}  # fmt: skip


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", nargs="*", default=recipe_files.names())
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to every recipe")
    parser.add_argument("--grown", default="tiny-tale", metavar="RECIPE", help="whose batch and context grow")
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 2, 4, 8, 16], help="at the recipe's context")
    parser.add_argument("--contexts", nargs="*", type=int, default=[64, 128, 256, 512, 1024], help="at a batch of 4")


def measure(given: argparse.Namespace, report: Report) -> None:
    if given.recipe:
        _recipes(given, report)
    recipe = recipe_files.load(given.grown, given.set)
    _growth(given, report, "batch", [(batch, recipe.model.context) for batch in given.batches])
    _growth(given, report, "context", [(4, context) for context in given.contexts])


def _recipes(given: argparse.Namespace, report: Report) -> None:
    table = report.table("Peak of a training step, by recipe", ["recipe", "switches"], COLUMNS)
    axes = Column("forecast", "bytes"), Column("measured", "bytes")
    lines: dict[str, Line] = {}
    plot = report.plot("Forecast against fact", *axes, "diagonal")
    for name in given.recipe:
        plain = None
        for switches, sets in _switched(recipe_files.load(name, given.set)).items():
            row = table.row(name, switches)
            if found := _add_peak(row, name, [*given.set, *sets]):
                plain = found[1] if switches == "plain" else plain
                row.set(of_plain=found[1] / plain if plain else None)
                lines[switches] = lines.get(switches) or plot.line(switches)
                lines[switches].add(*found)


def _switched(recipe: Recipe) -> dict[str, list[str]]:
    """As it is only where that is something else than plain."""
    train = recipe.train
    plain = train.gradient_checkpointing == "none" and train.loss_chunk_tokens is None
    rows = train.batch_size * train.accumulate
    row_by_row = [] if train.accumulate_schedule else ["train.batch_size=1", f"train.accumulate={rows}"]
    return {"plain": PLAIN, **({} if plain else {"as it is": []}), "all on": [*ALL_ON, *row_by_row]}


def _growth(given: argparse.Namespace, report: Report, grows: str, sizes: list[tuple[int, int]]) -> None:
    title = f"Peak of a training step, {given.grown}, as the {grows} grows"
    table = report.table(title, ["batch", "context"], COLUMNS[:3])
    plot = report.plot(title, Column(grows), Column("peak", "bytes", "lower"))
    lines = [plot.line("forecast"), plot.line("measured")]
    for batch, context in sizes:
        row = table.row(batch, context)
        changes = [f"train.batch_size={batch}", "train.accumulate=1", f"model.context={context}"]
        if found := _add_peak(row, given.grown, [*given.set, *changes]):
            for line, value in zip(lines, found, strict=True):
                line.add(batch if grows == "batch" else context, value)


def _add_peak(row: Row, name: str, sets: list[str]) -> tuple[int, int] | None:
    """Bytes forecast and measured."""
    with excused(row):
        forecast = steps.forecast_memory(recipe_files.load(name, sets)).peak
        row.set(forecast=forecast)
        measured = call(peak, name, sets)["peak"]
        row.set(measured=measured, measured_beside_forecast=measured / forecast)
        return forecast, measured


def peak(name: str, sets: list[str]) -> Figures:
    """In this process: the highest of a few steps, by MLX's count."""
    return {"peak": steps.peak(recipe_files.load(name, sets))}


if __name__ == "__main__":
    main("forecast")
