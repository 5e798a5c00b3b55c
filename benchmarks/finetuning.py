"""How fast is fine-tuning, in how much memory and how well, beside mlx-lm's trainer and, with --peers, peft?

    tinytale bench finetuning --data wikisql/train.jsonl --valid wikisql/valid.jsonl --peers

A Llama of 42M parameters (12 layers, 512 wide, 8,192 tokens), random weights, float32; AdamW with one learning rate,
LoRA of rank 8 on every matrix of the blocks. `tinytale` and the peers get mlx-lm's own batches of four examples, in the
same order; `tinytale-binned` has those that a user of ours gets, of as many tokens, padding included; to these
`tinytale-chunked` is as `tinytale`, with the loss in pieces. Only tokens that are trained count, no padding.

Each program is a process of its own, on a CPU with one core: one thread of BLAS, and one stream of MLX (`tinytale
finetune` has as many as there are cores, and is faster for it). They take turns, so that a busy machine slows all of
them, and ratios are the medians of the rounds' ratios. The first turn, a step of each shape of batch that follows and
of the largest one, is where all is compiled: it counts for the peak alone. Loss: all begin with the same weights, train
as many tokens, and are judged by the same function, ours.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from tinytale_mlx import device
from tinytale_mlx.data import sources
from tinytale_mlx.data.binning import BinnedBatches
from tinytale_mlx.data.masks import conversation_set
from tinytale_mlx.data.rows import Batch
from tinytale_mlx.evaluation.loss import evaluate
from tinytale_mlx.interop.huggingface import load_model, save_model
from tinytale_mlx.models import Transformer
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.randomness import key
from tinytale_mlx.recipe import DataRecipe, GenerateRecipe, ModelConfig
from tinytale_mlx.recipe.tuning import QuantizeRecipe, TuneRecipe
from tinytale_mlx.tokenizers import ByteBPE
from tinytale_mlx.tokenizers.base import Tokenizer
from tinytale_mlx.training.adamw import AdamW
from tinytale_mlx.training.losses import token_loss
from tinytale_mlx.training.step import Step
from tinytale_mlx.tuning import attach, load_adapter, new_adapter, save_adapter
from tinytale_mlx.tuning.quantize import quantize, uniform

from . import steps
from .apart import Figures, Unavailable, Worker, call, excused, take_turns
from .machine import process_peak
from .results import Column, Report, Row, Table
from .runner import main

BATCH, RATE, CONTEXT, VOCABULARY = 4, 1e-4, 512, 8192
METHODS = ("lora", "lora-checkpoint", "full", "qlora")
PROGRAMS = ("tinytale", "tinytale-binned", "tinytale-chunked", "mlx-lm")
PEERS = ("transformers and peft",)
LEARNING = {"methods": ("lora", "full"), "programs": ("tinytale", "tinytale-binned", "mlx-lm")}
"""Whose losses are compared: the others compute the same, or take too long."""
QUICK = {"steps": 2, "rounds": 2, "tokens": 800, "layers": 2, "methods": ["lora", "full"],
         "programs": ["tinytale-binned", "mlx-lm"]}  # fmt: skip
CLOCKS = {"per_CPU_second": "cpu_seconds", "speed": "seconds"}
ONE_THREAD = {"MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


# ---------------------------------------------------------------------- what all get
def prepare(folder: Path, data: str | None, valid: str | None, layers: int) -> None:
    """The model directory, an adapter for each method, and of the examples tokens and offsets."""
    train, held_out = _texts(data, valid)
    tokenizer = ByteBPE.train(train, VOCABULARY)
    config = ModelConfig(
        hidden_size=512, layers=layers, heads=8, kv_heads=4, intermediate_size=1536, context=CONTEXT,
        vocab_size=VOCABULARY,
    )  # fmt: skip
    model = Transformer(config)
    save_model(folder, model, tokenizer, GenerateRecipe(), chat_template=False)
    for method, settings in {
        "lora": TuneRecipe(rank=8, scale=20.0),
        "full": TuneRecipe(method="full", layers=layers),  # the blocks alone, of which mlx-lm's "full" consists
    }.items():
        save_adapter(folder / method, new_adapter(model, settings, key(0, "adapter")))
    _write_examples(folder / "train.safetensors", train, tokenizer)
    _write_examples(folder / "valid.safetensors", held_out, tokenizer)


def _texts(data: str | None, valid: str | None) -> tuple[list[str], list[str]]:
    """To train on, and held out: another file, or else the last tenth."""

    def read(recipe: DataRecipe) -> list[str]:
        return [str(one) for one in sources.documents(recipe, seed=0)]

    texts = read(DataRecipe(source=data) if data else DataRecipe(documents=1000))
    if valid:
        return texts, read(DataRecipe(source=valid))
    share = max(len(texts) // 10, 1)
    return texts[:-share], texts[-share:]


def _write_examples(path: Path, texts: list[str], tokenizer: Tokenizer) -> None:
    examples = conversation_set(texts, tokenizer, CONTEXT)
    arrays = {name: mx.array(np.array(getattr(examples, name))) for name in ("tokens", "weights", "offsets")}
    mx.save_safetensors(str(path), arrays)


def examples_of(folder: Path, side: str) -> list[np.ndarray]:
    """Tokens, weights and offsets."""
    found: Any = mx.load(str(folder / f"{side}.safetensors"))
    return [np.array(found[name]) for name in ("tokens", "weights", "offsets")]


class Rows(list[dict[str, list[int]]]):
    """Examples as mlx-lm's `CacheDataset` asks for them: rows with one key, as of JSON Lines, each of which becomes
    tokens, and how many of them are the prompt."""

    def process(self, row: dict[str, list[int]]) -> tuple[list[int], int]:
        return row["text"], 0


def mlx_lm_batches(folder: Path) -> list[Batch]:
    """An epoch as mlx-lm's trainer has it."""
    from mlx_lm.tuner.datasets import CacheDataset
    from mlx_lm.tuner.trainer import iterate_batches

    tokens, _, offsets = examples_of(folder, "train")
    dataset = CacheDataset(Rows({"text": one.tolist()} for one in np.split(tokens, offsets[1:-1])))
    found, batches = [], iterate_batches(dataset, BATCH, CONTEXT + 1, seed=0)
    for rows, lengths in batches:
        places = np.arange(1, rows.shape[1])
        found.append(Batch(np.array(rows), (places < np.array(lengths)[:, 1:]).astype(np.float32)))
    return found


def binned_batches(folder: Path) -> list[Batch]:
    """An epoch of ours, in batches of as many tokens, padding included, as mlx-lm's have on average."""
    tokens, weights, offsets = examples_of(folder, "train")
    budget = int(np.mean([batch.weights.size for batch in mlx_lm_batches(folder)]))
    binned = BinnedBatches(tokens, weights, offsets, max(budget, int(np.diff(offsets).max())), 0)
    return [binned.at(number) for number in range(binned.count)]


# ---------------------------------------------------------------------- the programs
class Program(NamedTuple):
    model: Any
    step: Callable[[Batch], object]
    epoch: list[Batch]


def opened(program: str, method: str, folder: Path) -> Program:
    """Loaded, and ready to train."""
    epoch = binned_batches(folder) if program.endswith("binned") else mlx_lm_batches(folder)
    make = {"mlx-lm": theirs, PEERS[0]: peft}.get(program) or partial(ours, chunked=program.endswith("chunked"))
    return Program(*make(method, folder), epoch)


def ours(method: str, folder: Path, chunked: bool) -> tuple[Any, Callable[[Batch], object]]:
    model, name = load_model(folder)[0], method.partition("-")[0]
    if name == "qlora":
        quantize(model, uniform(model, QuantizeRecipe()))
    adapter = load_adapter(folder / name.removeprefix("q"))
    tuned = attach(model, adapter, any_base=True, keep_base=False)
    if method.endswith("checkpoint"):
        model.recompute("block")
    loss = partial(token_loss, chunk_tokens=128 if chunked else None)
    step = Step(tuned.model, AdamW(RATE, (0.9, 0.999), 1e-8, 0.0), None, loss)
    step.lanes = step.lanes[:1]  # one core, as the others have it
    return tuned.model, lambda batch: step([batch], RATE, key(0))


def theirs(method: str, folder: Path) -> tuple[Any, Callable[[Batch], object]]:
    """The step of mlx_lm.tuner.trainer.train: the same compiled function of its loss."""
    from mlx_lm.tuner.trainer import grad_checkpoint
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model as load_theirs

    from .peers.mlx_lm_gpt import training_step

    if not device.on_gpu():
        mx.set_cache_limit(32 * device.MIB)  # MLX's own, which mlx-lm leaves as it is
    model: Any = load_theirs(folder)[0]
    name = method.partition("-")[0]
    if name == "qlora":
        nn.quantize(model, group_size=64, bits=4)
    model.freeze()
    if name == "full":
        for layer in model.layers:
            layer.unfreeze()
    load_adapters(model, str(folder / name.removeprefix("q")))
    if method.endswith("checkpoint"):
        grad_checkpoint(model.layers[0])
    step = training_step(model, optim.AdamW(RATE, weight_decay=0.0, bias_correction=True))
    model.train()

    def take(batch: Batch) -> None:
        lengths = 1 + batch.weights.sum(axis=1).astype(np.int64)
        step(mx.array(batch.tokens), mx.array(np.stack([np.zeros_like(lengths), lengths], axis=1)))

    return model, take


def peft(method: str, folder: Path) -> tuple[Any, Callable[[Batch], object]]:
    """The same in PyTorch: transformers' Llama, with peft's LoRA."""
    from .peers.peft_lora import PeftTrainer

    if method == "qlora":
        raise Unavailable("peft's QLoRA needs bitsandbytes, and that an NVIDIA card")
    trainer = PeftTrainer(folder, method, RATE)
    return trainer.model, lambda batch: trainer.step(batch.tokens, batch.weights)


# ---------------------------------------------------------------------- measured
def turns(program: str, method: str, place: str, count: int, rounds: int) -> Iterator[Figures]:
    """What the first step of every shape takes, then so many steps, `rounds` times."""
    found = opened(program, method, Path(place))
    largest = max(found.epoch, key=lambda batch: batch.weights.size)
    batches = list(itertools.islice(itertools.cycle(found.epoch), count * rounds))
    shapes = {batch.weights.shape: batch for batch in [largest, *batches]}
    windows = [batches[first : first + count] for first in range(0, len(batches), count)]
    peak = 0
    mx.clear_cache()
    for some in [list(shapes.values()), *windows]:
        figures = steps.timed(lambda some=some: [found.step(batch) for batch in some])
        peak = max(peak, figures["peak"])
        figures |= {"tokens": _trained(some), "shapes": len(shapes), "process_peak": process_peak()}
        yield {**figures, "peak": None if program in PEERS else peak}


def _trained(batches: Iterable[Batch]) -> float:
    return float(sum(batch.weights.sum() for batch in batches))


def learned(program: str, method: str, place: str, tokens: int) -> Figures:
    """The loss on what was held out, after the first step with which so many tokens are trained."""
    folder = Path(place)
    found = opened(program, method, folder)
    done, updates = 0.0, 0
    for batch in itertools.cycle(found.epoch):
        if done >= tokens:
            break
        found.step(batch)
        done, updates = done + _trained([batch]), updates + 1
    weights = dict(named_arrays(found.model.trainable_parameters()))
    return {"tokens": done, "updates": updates, "loss": loss_with(weights, folder)}


def loss_with(weights: dict[str, mx.array], folder: Path) -> float:
    """Nats per token of what was held out, with these trained arrays in or on the model."""
    model, config = load_model(folder)
    adapter = load_adapter(folder / ("lora" if any(name.endswith("lora_a") for name in weights) else "full"))
    assert weights.keys() == adapter.weights.keys()
    adapter.weights.update(weights)
    tuned = attach(model, adapter)
    tokens, counted, offsets = examples_of(folder, "valid")
    binned = BinnedBatches(tokens, counted, offsets, BATCH * CONTEXT, 0)
    no_bytes = np.zeros(config.vocab_size or 0)
    return evaluate(tuned.model, (binned.at(number) for number in range(binned.count)), no_bytes).loss


# ---------------------------------------------------------------------- all of them
def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="JSON Lines with a field `text`, such as wikisql's; else embedded tales")
    parser.add_argument("--valid", help="held out, likewise; else the last tenth of the data")
    parser.add_argument("--steps", type=int, default=4, help="of one program before the next has its turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=20_000, help="trained before the loss; 0: leave it out")
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
            Column("beside mlx-lm", "x", "higher"),
            Column("peak by MLX", "bytes", "lower"),
            Column("peak of the process", "bytes", "lower"),
            Column("shapes"),
            Column("first steps", "s"),
        ],
        ["Beside mlx-lm: trained tokens per CPU second, on a GPU per second. First steps: CPU seconds of that turn."],
    )  # fmt: skip
    losses = report.table(
        "Loss after as many trained tokens",
        ["method", "program"],
        [Column("validation loss", "", "lower"), Column("tokens"), Column("updates")],
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        prepare(folder, given.data, given.valid, given.layers)
        for method in given.methods:
            rows = {name: table.row(method, name) for name in [*given.programs, *(PEERS if given.peers else ())]}
            _take_turns(rows, method, folder, given)
            if given.tokens and method in LEARNING["methods"]:
                _learn(losses, method, str(folder), given)


def _take_turns(rows: dict[str, Row], method: str, folder: Path, given: argparse.Namespace) -> None:
    arguments = (method, str(folder), given.steps, given.rounds)
    sides = [(row, partial(Worker, turns, name, *arguments, environment=ONE_THREAD)) for name, row in rows.items()]
    for number, found in enumerate(take_turns(sides, 1 + given.rounds, warm_up=0)):
        by_name = {name: figures for name, figures in zip(rows, found, strict=True) if figures}
        for name, figures in by_name.items():
            rows[name].set(
                peak_by_MLX=figures["peak"], peak_of_the_process=figures["process_peak"], shapes=figures["shapes"]
            )
            if number:
                _add(rows[name], figures, by_name.get("mlx-lm"))
            else:
                rows[name].set(first_steps=figures["cpu_seconds"])


def _add(row: Row, figures: Figures, beside: Figures | None) -> None:
    """A round's figures."""
    row.add(**{name: figures["tokens"] / figures[clock] for name, clock in CLOCKS.items()})
    if beside:
        clock = "seconds" if device.on_gpu() else "cpu_seconds"
        ratio = figures["tokens"] / figures[clock] / (beside["tokens"] / beside[clock])
        row.add(**{"beside mlx-lm": ratio})


def _learn(losses: Table, method: str, folder: str, given: argparse.Namespace) -> None:
    sides = {"untrained": ("tinytale", 0)}
    sides |= {name: (name, given.tokens) for name in given.programs if name in LEARNING["programs"]}
    for name, (program, tokens) in sides.items():
        row = losses.row(method, name)
        with excused(row):
            found = call(learned, program, method, folder, tokens, environment=ONE_THREAD)
            row.set(validation_loss=found["loss"], tokens=found["tokens"], updates=found["updates"])


if __name__ == "__main__":
    main("finetuning")
