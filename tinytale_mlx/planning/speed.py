"""How many tokens a second, from operations and a share of the machine's peak; and no faster than memory can be read.

A roofline (Williams et al. 2009): the time of a step is that of its arithmetic, or that of its traffic where that
takes longer. The share of the peak is an assumption, so it is a range, and so is everything that comes from it.
"""

from dataclasses import dataclass

from ..recipe import ModelConfig, TrainRecipe
from .flops import flops_per_token, update_flops
from .machine import Machine
from .memory import Memory


@dataclass(frozen=True)
class Speed:
    """From the slower end of the assumption to the faster one."""

    tokens_per_second: tuple[float, float]
    hours: tuple[float, float]


def forecast_speed(config: ModelConfig, train: TrainRecipe, machine: Machine, memory: Memory, tokens: int) -> Speed:
    """Of a training of so many tokens. Validation, samples and checkpoints come on top."""
    per_token = flops_per_token(config, train)
    batch = train.batch_size * train.accumulate * config.context
    operations = (per_token.training + per_token.recomputed) * batch + update_flops(config, train)
    rates = []
    for share in machine.utilisation:
        seconds = operations / (share * machine.teraflops * 1e12)
        if machine.bandwidth is not None:
            seconds = max(seconds, _traffic(memory, train) / (machine.bandwidth * 1e9))
        rates.append(batch / seconds)
    slow, fast = rates
    return Speed((slow, fast), (tokens / fast / 3600, tokens / slow / 3600))


def _traffic(memory: Memory, train: TrainRecipe) -> float:
    """Bytes of a step, at least: activations are written once and read once, in each micro-batch; so are gradients;
    in the update, weights and the optimiser's state are read and written."""
    return 2 * (memory.activations + memory.logits) * train.accumulate + 4 * memory.weights + 2 * memory.optimizer
