"""What a process of `test_distributed.py` does; it leaves what it found in FOLDER/RANK.safetensors."""

import sys
from pathlib import Path

import numpy as np

import tinytale_mlx  # noqa: F401  isort: skip
import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training import distributed
from tinytale_mlx.training.optimizers import make_optimizer
from tinytale_mlx.training.step import Step, StepResult

CONFIG = ModelConfig(
    hidden_size=32, layers=2, heads=4, context=24, intermediate_size=48, vocab_size=40, tie_embeddings=False
)
ROWS, STEPS = 6, 3
ADAMW = TrainRecipe(eps=1e-3)  # with less, Adam makes a step of what is a rounding error in a gradient of nothing


def batches(step: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two micro-batches; the first third of the rows is much emptier than the others, the very first row quite."""
    dice = np.random.default_rng(step)
    weights = np.ones((2, ROWS, 12), np.float32)
    weights[:, : ROWS // 3, 2:], weights[0, 0] = 0, 0
    return list(zip(dice.integers(0, 40, (2, ROWS, 13)).astype(np.int32), weights, strict=True))


def trained(
    optimizer: optim.Optimizer, world: distributed.World | None, lanes: int = 1, freeze: bool = False
) -> tuple[dict[str, mx.array], list[StepResult]]:
    """The weights and results of a few steps, in which this process takes its share of the rows, or all."""
    model = Transformer(CONFIG, seed=1)
    if freeze:
        model.layers[0].freeze()
    step = Step(model, optimizer, 1.0, all_sum=world.all_sum if world else None)
    step.lanes = [mx.new_stream(mx.default_device()) for _ in range(lanes)]  # type: ignore[assignment]
    each = ROWS // world.size if world else ROWS
    mine = slice(world.rank * each, (world.rank + 1) * each) if world else slice(None)
    results = []
    for number in range(STEPS):
        own = [(tokens[mine], weights[mine]) for tokens, weights in batches(number)]
        results.append(step(own, 1e-2, mx.random.key(number)))
    return dict(tree_flatten(model.parameters())), results


CASES = {
    "sgd": lambda world: trained(optim.SGD(1.0), world),
    "adamw": lambda world: trained(make_optimizer(ADAMW), world),
    "muon, two lanes": lambda world: trained(
        make_optimizer(ADAMW.model_copy(update={"optimizer": "muon"})), world, lanes=2
    ),
    "a frozen layer": lambda world: trained(make_optimizer(ADAMW), world, freeze=True),
}


def exchanges(world: distributed.World) -> dict[str, mx.array]:
    """Every kind of message."""
    state = {
        "a": mx.array(-0.0 if world.leads else 1.0),
        "b": [mx.full((3, 5), 1.5 + world.rank, mx.bfloat16), mx.zeros((0,))],
    }
    other = dict(sorted(state.items(), reverse=not world.leads))  # told by name, not by place
    world.copy_first(other)
    text = world.from_first(b"a tale" if world.leads else b"")
    return {
        "ranks": mx.array(list(world.gather(bytes([world.rank + 7]))[-1])),
        "sum": mx.array(np.array(world.add(world.rank + 2**24, 1), np.int32)),
        "any": mx.array([world.any(world.rank == 1), world.any(False)]),
        "text": mx.array(list(text)),
        "nothing": mx.array(len(world.from_first(b""))),
        "sign": mx.array(bool(np.signbit(np.array(other["a"])))),
        "array": other["b"][0].astype(mx.float32),
        "unfit": mx.array(world.unfit(world.leads)),
        "seeds": mx.array(world.seed(5)),
    }


def memory(world: distributed.World) -> mx.array:
    """Bytes that a sum takes at most beside its 24 gradients of 2 MB and one of 32 MB."""
    gradients = {str(i): mx.ones((1 << 19,)) for i in range(24)} | {"large": mx.ones((8 << 20,))}
    total = (mx.array(0.0), mx.array(1.0), gradients)
    del gradients
    mx.eval(total)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    total = world.all_sum(total)
    assert all(bool((array == world.size).all()) for array in total[2].values())
    return mx.array(mx.get_peak_memory() - before)


def main() -> None:
    world = distributed.world()
    found = exchanges(world) | {"memory": memory(world)}
    for case, train in CASES.items():
        weights, results = train(world)
        found |= {f"{case}/{name}": array for name, array in weights.items()}
        found[f"{case}/results"] = mx.array(np.array(results, np.float32))
    mx.save_safetensors(str(Path(sys.argv[1]) / f"{world.rank}.safetensors"), found)


if __name__ == "__main__":
    main()
