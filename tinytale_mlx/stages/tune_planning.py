"""What a fine-tuning would take, before anything is loaded: the planner's figures for this machine and for others.

Of others' architectures, which mlx-lm runs, nothing is known.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import run
from ..errors import UserError
from ..interop.huggingface import load_config
from ..planning.machine import Backend, Machine, mac
from ..planning.memory import frozen_peak, plan_memory
from ..planning.parameters import block_shapes, count, planned_config
from ..planning.speed import Speed, forecast_speed
from ..recipe import FinetuneRecipe, ModelConfig, TrainRecipe
from ..recipe.tuning import QuantizeRecipe, TuneRecipe
from ..tokenizers import load_tokenizer
from ..training.schedules import micro_batches_before
from .adapting import LONGEST, run_of
from .loading import is_model
from .planning import chips_of, this_machine

FROZEN = 3 / 2
"""Of the three matrix products that training takes for each matrix and token, two are left for one that is frozen."""


@dataclass(frozen=True)
class TuneForecast:
    """Of batches that are full of examples as long as they may be."""

    machine: Machine
    peak: int
    """Bytes."""
    speed: Speed

    @property
    def fits(self) -> bool:
        return self.peak <= self.machine.usable

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine.name,
            "basis": self.machine.basis,
            "usable_memory_bytes": self.machine.usable,
            "memory": {"peak": self.peak},
            "fits": self.fits,
            "tokens_per_second": list(self.speed.tokens_per_second),
            "hours": list(self.speed.hours),
        }


def forecast_tuning(config: ModelConfig, recipe: FinetuneRecipe, machine: Machine) -> TuneForecast:
    """Of examples of `config.context` tokens."""
    train = recipe.train
    tokens = micro_batches_before(train.steps, train) * train.batch_size * config.context
    peak = tuning_peak(config, train, recipe.tune, machine.backend)
    speed = forecast_speed(config, train, machine, plan_memory(config, train, machine.backend), tokens)
    if recipe.tune.method == "full":
        return TuneForecast(machine, peak, speed)
    (slow, fast), (least, most) = speed.tokens_per_second, speed.hours
    return TuneForecast(machine, peak, Speed((slow * FROZEN, fast * FROZEN), (least / FROZEN, most / FROZEN)))


def tuning_peak(config: ModelConfig, train: TrainRecipe, tune: TuneRecipe, backend: Backend) -> int:
    """Bytes at the peak of a step of `train.batch_size` rows of `config.context` tokens."""
    if tune.method == "full":
        return plan_memory(config, train, backend).peak
    return frozen_peak(config, train, backend, bits_per_weight(tune.quantize), _trained(config, tune))


def bits_per_weight(quantize: QuantizeRecipe | None) -> float | None:
    """With the scale of each group, and in mode affine its offset, both float32; the other modes have 8 bits."""
    if quantize is None:
        return None
    return quantize.num_bits + (64 if quantize.mode == "affine" else 8) / quantize.weights_per_group


def _trained(config: ModelConfig, tune: TuneRecipe) -> int:
    """Numbers that LoRA or DoRA trains at the most: rank x (inputs + outputs) of every matrix inside the blocks."""
    if tune.method not in ("lora", "dora"):
        return 0
    sides = sum(sum(shape) for _, shape in block_shapes(config) if len(shape) == 2)
    return tune.rank * sides * config.num_distinct_layers


def check_tuning(recipe: FinetuneRecipe, context: int, forecast: TuneForecast) -> None:
    """Raises UserError, naming what to switch on, where the forecast says that it cannot fit."""
    if forecast.fits:
        return
    switch = "--lora, or " if recipe.tune.method == "full" else ""
    raise UserError(
        f"tuning {recipe.base} with examples of up to {context:,} tokens would take about "
        f"{forecast.peak / 1e6:,.0f} MB at its peak, and {forecast.machine.usable / 1e6:,.0f} MB can be used here; add "
        f"{switch}--set train.batch_size=1, --set train.loss_chunk_tokens=256 or --set "
        "train.gradient_checkpointing=block (--force tries all the same)"
    )


@dataclass(frozen=True)
class TunePlan:
    recipe: FinetuneRecipe
    parameters: int
    context: int
    """Tokens of the longest example that is allowed."""
    forecasts: list[TuneForecast]

    def to_json(self) -> dict[str, Any]:
        train, tune = self.recipe.train, self.recipe.tune
        return {
            "base": self.recipe.base,
            "method": tune.method,
            "quantized": tune.quantize is not None,
            "parameters": self.parameters,
            "batch_size": train.batch_size,
            "accumulate": train.accumulate,
            "context": self.context,
            "steps": train.steps,
            "forecasts": [one.to_json() for one in self.forecasts],
        }


def plan_finetune(recipe: FinetuneRecipe, chips: list[str] | None = None, root: Path = run.ROOT) -> TunePlan:
    """Forecasts for a fine-tuning: on those chips (`all` for all that are known), else here and on an 8 GB M2.

    Raises UserError for a base or a chip that is not there, and for a base of another architecture.
    """
    base = _config(recipe.base, root)
    config = base.model_copy(update={"context": recipe.data.context or min(base.context, LONGEST)})
    machines = [mac(chip, config) for chip in chips_of(chips)]
    if not chips:
        machines.insert(0, this_machine(config, recipe.train.precision))
    forecasts = [forecast_tuning(config, recipe, machine) for machine in machines]
    return TunePlan(recipe, count(base), config.context, forecasts)


def _config(base: str, root: Path) -> ModelConfig:
    """Of the model that is tuned, without its weights."""
    this = run_of(base, root)
    folder = Path(base) if this is None else this.model
    if is_model(folder):
        return load_config(folder)
    if this is None:
        raise UserError(
            f"there is no run and no model directory {base} to plan with; one of the hub has to be downloaded first"
        )
    if not (this.tokenizer / "tokenizer_config.json").is_file():
        raise UserError(f"the run {this.name} has no model yet; `{this.resume_command}` goes on with it")
    return planned_config(this.recipe(), load_tokenizer(this.tokenizer).vocab_size)
