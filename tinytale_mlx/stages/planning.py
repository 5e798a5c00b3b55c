"""What a recipe would take, before anything is made: the planner's figures for this machine and for others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import device, recipe_files, run
from ..errors import UserError
from ..planning.chips import CHIPS, DEFAULT_CHIP, Chip, find_chip
from ..planning.flops import Flops, flops_per_token, update_flops
from ..planning.forecast import Forecast, forecast
from ..planning.machine import CPU_UTILISATION, METAL, Machine, cpu, gpu_utilisation, mac, measured_teraflops
from ..planning.parameters import count, planned_config, vocabulary
from ..recipe import ModelConfig, Recipe
from ..recipe.training import Precision
from ..tokenizers import load_tokenizer
from ..training.schedules import micro_batches_before
from ..training.step import cpu_lanes


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    parameters: int
    vocab_size: int
    vocab_from: str
    flops: Flops
    flops_per_update: int
    tokens: int
    """That the whole training sees."""
    forecasts: list[Forecast]

    def to_json(self) -> dict[str, Any]:
        train = self.recipe.train
        return {
            "recipe": self.recipe.name,
            "parameters": self.parameters,
            "vocab_size": self.vocab_size,
            "vocab_size_from": self.vocab_from,
            "forward_flops_per_token": self.flops.forward,
            "training_flops_per_token": self.flops.training,
            "recomputed_flops_per_token": self.flops.recomputed,
            "flops_per_update": self.flops_per_update,
            "batch_size": train.batch_size,
            "accumulate": train.accumulate,
            "context": self.recipe.model.context,
            "steps": train.steps,
            "tokens": self.tokens,
            "forecasts": [one.to_json() for one in self.forecasts],
        }


def plan(
    what: str | None = None, overrides: list[str] | None = None, chips: list[str] | None = None, root: Path = run.ROOT
) -> Plan:
    """Forecasts for a recipe or a run: on those chips (`all` for all that are known), else here and on an 8 GB M2.

    Raises UserError for a recipe or a chip that is not there.
    """
    known = chips_of(chips)
    recipe, vocab_size = _resolve(what, overrides or [], root)
    machines = [mac(chip, recipe.model) for chip in known]
    if not chips:
        machines.insert(0, this_machine(recipe.model, recipe.train.precision))
    return _plan(recipe, vocab_size, machines)


def forecast_here(recipe: Recipe, vocab_size: int) -> Forecast:
    """What a training of the recipe takes on this machine, now that the tokenizer is there."""
    machine = this_machine(recipe.model, recipe.train.precision, seconds=0.05)
    return _plan(recipe, vocab_size, [machine]).forecasts[0]


def check_memory(recipe: Recipe, forecast: Forecast) -> None:
    """Raises UserError, naming what to switch on, where the forecast says that it cannot fit."""
    if forecast.fits:
        return
    needs, there = forecast.memory.peak / 1e6, forecast.machine.usable / 1e6
    if forecast.remedy:
        switches = " ".join(f"--set {one}" for one in forecast.remedy)
        way_out = f"add {switches}, or choose a smaller model"
    else:
        way_out = "choose a smaller model or model.context"
    raise UserError(
        f"training {recipe.name} would take about {needs:,.0f} MB at its peak, and {there:,.0f} MB can be used here; "
        f"{way_out} (`tinytale plan` shows what takes it; --force tries all the same)"
    )


def this_machine(config: ModelConfig, precision: Precision, seconds: float = 0.3) -> Machine:
    """With its speed from a measured matrix product in that precision."""
    teraflops = measured_teraflops(precision, seconds)
    gpu = device.on_gpu()
    share = gpu_utilisation(config) if gpu else CPU_UTILISATION
    return Machine(
        f"this machine ({device.describe()['device']})",
        METAL if gpu else cpu(len(cpu_lanes())),
        device.usable_memory(),
        teraflops,
        share,
        f"this machine: estimated, {share[0]:.0%} to {share[1]:.0%} of {1000 * teraflops:,.0f} GFLOP/s, measured "
        f"now with a matrix product in {precision}",
    )


def _plan(recipe: Recipe, vocab_size: int | None, machines: list[Machine]) -> Plan:
    size, origin = vocabulary(recipe)
    if vocab_size is not None and recipe.model.vocab_size is None:
        size, origin = vocab_size, "the tokenizer"
    config, train = planned_config(recipe, size), recipe.train
    tokens = micro_batches_before(train.steps, train) * train.batch_size * config.context
    return Plan(
        recipe,
        count(config),
        size,
        origin,
        flops_per_token(config, train),
        update_flops(config, train),
        tokens,
        [forecast(config, train, machine, tokens) for machine in machines],
    )


def chips_of(names: list[str] | None) -> list[Chip]:
    """Those of these names, each once; `all` are all that are known, and none is an 8 GB M2."""
    found = [key for name in names or [DEFAULT_CHIP] for key in (CHIPS if name == "all" else [find_chip(name).key])]
    return [CHIPS[key] for key in dict.fromkeys(found)]


def _resolve(what: str | None, overrides: list[str], root: Path) -> tuple[Recipe, int | None]:
    """The recipe, and the size of its tokenizer where that is trained. A recipe goes before a run of its name."""
    name = what or "tale"
    try:
        recipe = recipe_files.load(name, overrides)
        folder = recipe.tokenizer.path if recipe.tokenizer.kind == "directory" else None
        return recipe, load_tokenizer(folder).vocab_size if folder and Path(folder).is_dir() else None
    except UserError:
        this = _run(name, root)
        if this is None:
            raise
    trained = (this.tokenizer / "tokenizer_config.json").is_file()
    size = load_tokenizer(this.tokenizer).vocab_size if trained else None
    return recipe_files.load(str(this.recipe_path), overrides), size


def _run(name: str, root: Path) -> run.Run | None:
    """The run of that name, unless it is a recipe's."""
    if name in recipe_files.names() or name.endswith((".yaml", ".yml")):
        return None
    try:
        return run.find(name, root)
    except UserError:
        return None
