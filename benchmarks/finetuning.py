"""Fine-tuning beside mlx-lm's trainer: `python -m tinytale_mlx.benchmarks.finetuning --data wikisql/train.jsonl`.

A Llama of 42M parameters (12 layers, 512 wide, 8,192 tokens), random weights, float32; the same batches of four
examples in the same order for both programs, padded alike. Every measurement is a process of its own. Peak memory is
MLX's own count, from after loading on, and is the same whenever it is measured; tokens per CPU second need a quiet
machine. `tinytale-binned` has batches of its own making, of the same size, `tinytale-chunked` a loss in pieces.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from tinytale_mlx.data import sources
from tinytale_mlx.data.binning import BinnedBatches
from tinytale_mlx.data.masks import conversation_set
from tinytale_mlx.interop.huggingface import load_model, save_model
from tinytale_mlx.models import Transformer
from tinytale_mlx.randomness import key
from tinytale_mlx.recipe import DataRecipe, GenerateRecipe, ModelConfig
from tinytale_mlx.recipe.tuning import QuantizeRecipe, TuneRecipe
from tinytale_mlx.tokenizers import ByteBPE
from tinytale_mlx.training.adamw import AdamW
from tinytale_mlx.training.losses import token_loss
from tinytale_mlx.training.step import Step
from tinytale_mlx.tuning import attach, new_adapter
from tinytale_mlx.tuning.quantize import quantize, uniform

from .machine import facts

BATCH, RATE, CONTEXT = 4, 1e-4, 512
METHODS = ("lora", "lora-checkpoint", "full", "qlora")
PROGRAMS = ("tinytale", "tinytale-binned", "tinytale-chunked", "mlx-lm")


# ---------------------------------------------------------------------- what both get
def prepare(folder: Path, data: Path) -> None:
    """The model directory, and of the examples tokens and offsets."""
    texts = [str(one) for one in sources.documents(DataRecipe(source=str(data)), seed=0)]
    tokenizer = ByteBPE.train(texts, 8192)
    config = ModelConfig(
        hidden_size=512, layers=12, heads=8, kv_heads=4, intermediate_size=1536, context=CONTEXT, vocab_size=8192
    )
    save_model(folder, Transformer(config), tokenizer, GenerateRecipe(), chat_template=False)
    examples = conversation_set(texts, tokenizer, CONTEXT)
    mx.save_safetensors(
        str(folder / "examples.safetensors"),
        {name: mx.array(np.array(getattr(examples, name))) for name in ("tokens", "weights", "offsets")},
    )


def examples_of(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found: Any = mx.load(str(folder / "examples.safetensors"))
    return np.array(found["tokens"]), np.array(found["weights"]), np.array(found["offsets"])


def batches(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(tokens [4, T+1], lengths [4]) for ever, as mlx-lm pads them: to 1 + a multiple of 32."""
    tokens, _, offsets = examples_of(folder)
    dice = np.random.default_rng(0)
    while True:
        order = dice.permutation(len(offsets) - 1)
        for first in range(0, len(order) - BATCH + 1, BATCH):
            rows = [tokens[offsets[i] : offsets[i + 1]] for i in order[first : first + BATCH]]
            width = 1 + 32 * -(-(max(map(len, rows)) - 1) // 32)
            padded = np.zeros((BATCH, width), np.int32)
            for place, row in enumerate(rows):
                padded[place, : len(row)] = row
            yield padded, np.array([len(row) for row in rows])


def weights_of(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return (np.arange(1, tokens.shape[1]) < lengths[:, None]).astype(np.float32)


# ---------------------------------------------------------------------- one measurement
def measure(program: str, method: str, folder: Path, steps: int) -> dict[str, float]:
    """Tokens per CPU second of the second half of the steps, in which most shapes are compiled; the peak of all."""
    once = theirs(method, folder) if program == "mlx-lm" else ours(program, method, folder)
    mx.clear_cache()
    mx.reset_peak_memory()
    tokens = spent = 0.0
    for number in range(steps):
        started = time.process_time()
        found = once()
        if number >= steps // 2:
            tokens, spent = tokens + found, spent + time.process_time() - started
    return {"tokens_per_cpu_second": tokens / spent, "peak_memory_bytes": mx.get_peak_memory()}


def ours(program: str, method: str, folder: Path) -> Callable[[], float]:
    model, _ = load_model(folder)
    name = method.partition("-")[0]
    if name == "qlora":
        quantize(model, uniform(model, QuantizeRecipe()))
    blocks = TuneRecipe(method="full", layers=len(model.layers))  # of which mlx-lm's "full" consists
    settings = blocks if name == "full" else TuneRecipe(rank=8, scale=20.0)
    tuned = attach(model, new_adapter(model, settings, key(0, "adapter")), keep_base=False)
    if method.endswith("checkpoint"):
        model.recompute("block")
    chunk = 128 if program.endswith("chunked") else None
    step = Step(
        tuned.model, AdamW(RATE, (0.9, 0.999), 1e-8, 0.0), None,
        lambda m, arrays, key: token_loss(m, arrays, key, chunk),
    )  # fmt: skip
    if program.endswith("binned"):
        tokens, weights, offsets = examples_of(folder)
        own = BinnedBatches(tokens, weights, offsets, BATCH * int(np.diff(offsets).max()), 0)
        numbers = iter(range(1 << 30))
        return lambda: step([own.at(next(numbers))], RATE, key(0)).tokens
    stream = batches(folder)

    def once() -> float:
        tokens, lengths = next(stream)
        return step([(tokens, weights_of(tokens, lengths))], RATE, key(0)).tokens

    return once


def theirs(method: str, folder: Path) -> Callable[[], float]:
    """The step of mlx_lm.tuner.trainer.train: the same compiled function of its loss, on the same batches."""
    from functools import partial

    from mlx_lm.tuner.trainer import default_loss, grad_checkpoint
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model as load_theirs

    model: Any = load_theirs(folder)[0]
    name = method.partition("-")[0]
    if name == "qlora":
        nn.quantize(model, group_size=64, bits=4)
    model.freeze()
    if name == "full":
        for layer in model.layers:
            layer.unfreeze()
    else:
        linear_to_lora_layers(model, len(model.layers), {"rank": 8, "scale": 20.0, "dropout": 0.0})
    if method.endswith("checkpoint"):
        grad_checkpoint(model.layers[0])
    optimizer = optim.AdamW(RATE, weight_decay=0.0, bias_correction=True)
    value_and_grad = nn.value_and_grad(model, default_loss)
    state = [model.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(tokens: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
        (loss, count), gradients = value_and_grad(model, tokens, lengths)
        optimizer.update(model, gradients)
        return loss, count

    model.train()
    stream = batches(folder)

    def once() -> float:
        tokens, lengths = next(stream)
        found = step(mx.array(tokens), mx.array(np.stack([np.zeros(BATCH, np.int64), lengths], axis=1)))
        mx.eval(state, found)
        mx.clear_cache()  # as its trainer does after every step
        return float(weights_of(tokens, lengths).sum())  # its own count has one too many in padded rows

    return once


# ---------------------------------------------------------------------- all of them
def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="JSON Lines with a field `text`, such as wikisql's")
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    options.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.measure:
        program, method, folder = given.measure
        print(json.dumps(measure(program, method, Path(folder), given.steps)))
        return
    print(json.dumps(facts()))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        prepare(folder, given.data)
        for method in given.methods:
            for program in given.programs:
                print(json.dumps({"method": method, "program": program, **_apart(program, method, folder, given)}))
                sys.stdout.flush()


def _apart(program: str, method: str, folder: Path, given: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "tinytale_mlx.benchmarks.finetuning", "--data", str(given.data), "--steps"]
    command += [str(given.steps), "--measure", program, method, str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
