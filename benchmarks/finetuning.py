"""How fast is fine-tuning, and in how much memory, beside mlx-lm's trainer and, with --peers, transformers and peft?

    tinytale bench finetuning --data wikisql/train.jsonl --peers

A Llama of 42M parameters (12 layers, 512 wide, 8,192 tokens), random weights, float32; the same batches of four
examples in the same order for all programs, padded alike. Every measurement is a process of its own. Peak memory is
MLX's own count, from after loading on, and is the same whenever it is measured; tokens per CPU second need a quiet
machine. `tinytale-binned` has batches of its own making, of the same size, `tinytale-chunked` a loss in pieces.
"""

import argparse
import tempfile
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

from . import steps
from .apart import Figures, Unavailable, call, excused
from .machine import process_peak
from .results import Column, Report
from .runner import main

BATCH, RATE, CONTEXT = 4, 1e-4, 512
METHODS = ("lora", "lora-checkpoint", "full", "qlora")
PROGRAMS = ("tinytale", "tinytale-binned", "tinytale-chunked", "mlx-lm")
PEERS = ("transformers and peft",)
QUICK = {"steps": 4, "layers": 2, "methods": ["lora", "full"], "programs": ["tinytale", "mlx-lm"]}


# ---------------------------------------------------------------------- what both get
def prepare(folder: Path, data: str | None, layers: int) -> None:
    """The model directory, and of the examples tokens and offsets."""
    recipe = DataRecipe(source=data) if data else DataRecipe(documents=2000)
    texts = [str(one) for one in sources.documents(recipe, seed=0)]
    tokenizer = ByteBPE.train(texts, 8192)
    config = ModelConfig(
        hidden_size=512, layers=layers, heads=8, kv_heads=4, intermediate_size=1536, context=CONTEXT,
        vocab_size=tokenizer.vocab_size,
    )  # fmt: skip
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
def work(program: str, method: str, place: str, count: int) -> Figures:
    """In this process: tokens per CPU second of the second half of the steps, in which most shapes are compiled; the
    peak of all."""
    folder = Path(place)
    sides = {"mlx-lm": theirs, PEERS[0]: peft}
    once = sides[program](method, folder) if program in sides else ours(program, method, folder)
    mx.clear_cache()
    first = steps.timed(lambda: [once() for _ in range(count // 2)])
    done: list[float] = []
    second = steps.timed(lambda: done.extend(once() for _ in range(count - count // 2)))
    peak = None if program in PEERS else max(first["peak"], second["peak"])
    speeds = {name: sum(done) / second[name] for name in ("seconds", "cpu_seconds")}
    return {**speeds, "peak": peak, "process_peak": process_peak()}


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
    from mlx_lm.tuner.trainer import grad_checkpoint
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model as load_theirs

    from .peers.mlx_lm_gpt import training_step

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
    step = training_step(model, optimizer)
    model.train()
    stream = batches(folder)

    def once() -> float:
        tokens, lengths = next(stream)
        step(mx.array(tokens), mx.array(np.stack([np.zeros(BATCH, np.int64), lengths], axis=1)))
        return float(weights_of(tokens, lengths).sum())  # its own count has one too many in padded rows

    return once


def peft(method: str, folder: Path) -> Callable[[], float]:
    """The same in PyTorch: transformers' Llama, with peft's LoRA."""
    from .peers.peft_lora import PeftTrainer

    if method == "qlora":
        raise Unavailable("peft's QLoRA needs bitsandbytes, and that an NVIDIA card")
    trainer, stream = PeftTrainer(folder, method, RATE), batches(folder)

    def once() -> float:
        tokens, lengths = next(stream)
        weights = weights_of(tokens, lengths)
        trainer.step(tokens, weights)
        return float(weights.sum())

    return once


# ---------------------------------------------------------------------- all of them
def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="JSON Lines with a field `text`, such as wikisql's; else embedded tales")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--layers", type=int, default=12, help="of the model")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))


def measure(given: argparse.Namespace, report: Report) -> None:
    table = report.table(
        "Fine-tuning",
        ["method", "program"],
        [
            Column("per CPU second", "tokens", "higher"),
            Column("speed", "tokens/s", "higher"),
            Column("peak by MLX", "bytes", "lower"),
            Column("peak of the process", "bytes", "lower"),
        ],
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        prepare(folder, given.data, given.layers)
        for method in given.methods:
            for program in [*given.programs, *(PEERS if given.peers else ())]:
                row = table.row(method, program)
                with excused(row):
                    found = call(work, program, method, str(folder), given.steps)
                    row.set(per_CPU_second=found["cpu_seconds"], speed=found["seconds"])
                    row.set(peak_by_MLX=found["peak"], peak_of_the_process=found["process_peak"])


if __name__ == "__main__":
    main("finetuning")
