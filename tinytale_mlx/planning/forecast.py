"""A recipe on a machine: does it fit, how large could a batch be, how long does it take, and what would help."""

from dataclasses import dataclass
from typing import Any

from ..recipe import ModelConfig, TrainRecipe
from .machine import Machine
from .memory import Memory, plan_memory
from .speed import Speed, forecast_speed

LARGEST_BATCH = 1 << 16
"""Nobody needs to know more exactly."""


@dataclass(frozen=True)
class Suggestion:
    """A key of the recipe to set, what that saves by itself at the peak, in bytes, and what it costs."""

    set: str
    saves: int
    costs: str


@dataclass(frozen=True)
class Forecast:
    machine: Machine
    memory: Memory
    largest_batch: int
    """Sequences per micro-batch that fit; 0 where not even one does."""
    speed: Speed
    suggestions: list[Suggestion]
    remedy: list[str]
    """The first of them that make it fit, taken together; empty where it fits, or where they do not help."""

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.machine.usable

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine.name,
            "basis": self.machine.basis,
            "usable_memory_bytes": self.machine.usable,
            "memory": self.memory.to_json(),
            "fits": self.fits,
            "largest_batch_size": self.largest_batch,
            "tokens_per_second": list(self.speed.tokens_per_second),
            "hours": list(self.speed.hours),
            "suggestions": [vars(one) for one in self.suggestions],
            "remedy": self.remedy,
        }


def forecast(config: ModelConfig, train: TrainRecipe, machine: Machine, tokens: int) -> Forecast:
    """Of a training of so many tokens. Needs config.vocab_size."""
    memory = plan_memory(config, train, machine.backend)
    choices = list(_choices(config, train, machine))
    return Forecast(
        machine,
        memory,
        largest_batch(config, train, machine),
        forecast_speed(config, train, machine, memory, tokens),
        _suggestions(config, train, machine, memory, choices),
        _remedy(config, train, machine, choices) if memory.peak > machine.usable else [],
    )


def largest_batch(config: ModelConfig, train: TrainRecipe, machine: Machine) -> int:
    """By bisection: memory grows with the batch."""
    fits, too_large = 0, LARGEST_BATCH
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        peak = plan_memory(config, _with(train, {"batch_size": middle}), machine.backend).peak
        fits, too_large = (middle, too_large) if peak <= machine.usable else (fits, middle)
    return fits


@dataclass(frozen=True)
class _Choice:
    changes: dict[str, Any]
    costs: str

    @property
    def set(self) -> str:
        return " ".join(f"train.{key}={value}" for key, value in self.changes.items())


def _choices(config: ModelConfig, train: TrainRecipe, machine: Machine) -> list[_Choice]:
    """What is not switched on yet, what costs least first."""
    choices = []
    if train.loss_chunk_tokens is None:
        choices.append(_Choice({"loss_chunk_tokens": 256}, "next to nothing"))
    if train.batch_size > 1 and train.batch_size % 2 == 0 and not train.accumulate_schedule:
        halved = {"batch_size": train.batch_size // 2, "accumulate": train.accumulate * 2}
        choices.append(_Choice(halved, "a little speed; the same training"))
    if train.gradient_checkpointing == "none":
        choices.append(_Choice({"gradient_checkpointing": "attention"}, "up to a tenth more time"))
    if train.gradient_checkpointing != "block":
        choices.append(_Choice({"gradient_checkpointing": "block"}, "up to a third more time"))
    if train.optimizer in ("adamw", "muon") and train.optimizer_state != "int8":
        choices.append(_Choice({"optimizer_state": "int8"}, "a little exactness"))
    if train.precision == "float32" and machine.backend.name == "gpu":
        choices.append(_Choice({"precision": "bfloat16"}, "a little exactness"))
    if train.batch_size > 1:
        changes = {"batch_size": 1, "accumulate": train.accumulate * train.batch_size}
        choices.append(_Choice(changes, "speed; the same training"))
    return choices


def _suggestions(
    config: ModelConfig, train: TrainRecipe, machine: Machine, memory: Memory, choices: list[_Choice]
) -> list[Suggestion]:
    """Each by itself; those that save nothing are left out."""
    saved = [memory.peak - plan_memory(config, _with(train, one.changes), machine.backend).peak for one in choices]
    return [
        Suggestion(one.set, saves, one.costs)
        for one, saves in zip(choices, saved, strict=True)
        if saves > memory.peak // 100
    ]


def _remedy(config: ModelConfig, train: TrainRecipe, machine: Machine, choices: list[_Choice]) -> list[str]:
    """Switched on one after the other until it fits; then those are dropped again that it fits without."""
    changes: dict[str, Any] = {}
    for one in choices:
        changes |= one.changes
        if _fits(config, train, machine, changes):
            break
    else:
        return []
    for key in list(changes):
        less = {k: v for k, v in changes.items() if k != key}
        if key not in ("batch_size", "accumulate") and _fits(config, train, machine, less):
            changes = less
    return [f"train.{key}={value}" for key, value in changes.items()]


def _fits(config: ModelConfig, train: TrainRecipe, machine: Machine, changes: dict[str, Any]) -> bool:
    return plan_memory(config, _with(train, changes), machine.backend).peak <= machine.usable


def _with(train: TrainRecipe, changes: dict[str, Any]) -> TrainRecipe:
    return train.model_copy(update=changes)
