"""How fast does a model write, beside mlx-lm with the same weights?

    tinytale bench generation --model 14m --bits 32 4 --rounds 5

Random weights; greedy; both sides in one process, in turns, so a busy machine slows both. A round reads a prompt and
writes on from it, alone and eight at a time. The figures of a side are medians over the rounds; a ratio is the median
of the rounds' ratios. CPU seconds count all threads, those too that wait in a BLAS; with MKL_NUM_THREADS=1 none do.
Peak memory is what MLX counts beyond the weights.

Then what a step consists of: the products with the weights alone, which every program has to compute, say how much
faster than mlx-lm a program could be for which everything else is free.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tinytale_mlx.generation.batch import generate_batch
from tinytale_mlx.generation.engine import generate_ids
from tinytale_mlx.generation.memory import make_memory
from tinytale_mlx.models import Transformer
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig
from tinytale_mlx.tuning.quantized_matmul import use_calibrated_product

from .peers.mlx_lm_gpt import llama_of
from .results import Column, Report, Row
from .runner import main

CONTEXT = 512
SHAPES: dict[str, dict[str, int]] = {
    "14m": {"vocab_size": 8192, "hidden_size": 384, "layers": 6, "heads": 6, "intermediate_size": 1024},
    "51m": {"vocab_size": 50257, "hidden_size": 512, "layers": 8, "heads": 8, "intermediate_size": 1408},
}
ROWS = 8


def both_models(shape: dict[str, int], bits: int) -> tuple[Transformer, Any]:
    """Ours, and mlx-lm's Llama with the same weights; below 32 bits quantized by the same call."""
    ours = Transformer(ModelConfig.model_validate({**shape, "context": CONTEXT}))
    theirs = llama_of(ours.config)
    theirs.load_weights(list(named_arrays(ours.parameters())), strict=True)
    if bits < 32:
        for model in (ours, theirs):
            nn.quantize(model, group_size=64, bits=bits)
        use_calibrated_product(ours)
    mx.eval(ours.parameters(), theirs.parameters())
    return ours, theirs


class Tinytale:
    def __init__(self, model: Transformer):
        self._model = model

    def stream(self, prompt: list[int], count: int) -> Iterator[int]:
        return generate_ids(self._model, prompt, _greedy(count), mx.random.key(0))

    def batch(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        return [text.tokens for text in generate_batch(self._model, prompts, _greedy(count), mx.random.key(0))]


class MlxLm:
    def __init__(self, model: Any):
        self._model = model

    def stream(self, prompt: list[int], count: int) -> Iterator[int]:
        from mlx_lm.generate import generate_step

        return (int(token) for token, _ in generate_step(mx.array(prompt), self._model, max_tokens=count))

    def batch(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        from mlx_lm.generate import batch_generate

        tokenizer = SimpleNamespace(eos_token_ids=[], decode=lambda ids: "")
        found = batch_generate(self._model, tokenizer, prompts, max_tokens=count, return_token_ids=True)
        assert found.token_ids is not None
        return found.token_ids


def _greedy(count: int) -> GenerateRecipe:
    return GenerateRecipe(temperature=0.0, max_new_tokens=count)


def measure_one(side: Tinytale | MlxLm, prompt: list[int], count: int) -> tuple[dict[str, float], Any]:
    """One text: how long until its first token, and how fast the others follow."""
    stream = side.stream(prompt, count)
    first, ids = _timed(lambda: [next(stream)])
    rest, more = _timed(lambda: list(stream))
    return {
        "first token": first["seconds"] * 1e3,
        "prefill": len(prompt) / first["seconds"],
        "prefill by CPU": len(prompt) / first["cpu"],
        "decode": (count - 1) / rest["seconds"],
        "decode by CPU": (count - 1) / rest["cpu"],
        "peak": max(first["peak"], rest["peak"]),
    }, [*ids, *more]


def measure_batch(side: Tinytale | MlxLm, prompts: list[list[int]], count: int) -> tuple[dict[str, float], Any]:
    """Eight texts from prompts of different lengths, reading them included."""
    timed, ids = _timed(lambda: side.batch(prompts, count))
    tokens = len(prompts) * count
    return {
        "batch": tokens / timed["seconds"],
        "batch by CPU": tokens / timed["cpu"],
        "batch peak": timed["peak"],
    }, ids


def _timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    mx.synchronize()
    mx.reset_peak_memory()
    held = mx.get_active_memory()
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    return {**seconds, "peak": mx.get_peak_memory() - held}, result


def take_apart(ours: Transformer, theirs: Any, given: argparse.Namespace, row: Row) -> None:
    """What one step of so many rows takes after the prompt: both programs', and the products with weights alone."""
    count = int(row.key[-1])
    prompt, token = mx.zeros((count, given.prompt), mx.int32), mx.zeros((count, 1), mx.int32)
    memory, cache = make_memory(ours, count), theirs.make_cache()
    memory.read(list(range(count)), [[0] * given.prompt] * count)
    mx.eval(theirs(prompt, cache=cache))
    layers = [module for module in ours.modules() if isinstance(module, nn.Linear | nn.QuantizedLinear)]
    wide = [(module, mx.zeros((count, 1, _inputs(module)))) for module in layers]
    hidden, head = mx.zeros((count, 1, ours.config.hidden_size)), ours.model.embed_tokens
    work: dict[str, Callable[[], Any]] = {
        "mlx-lm": lambda: theirs(token, cache=cache),
        "tinytale": lambda: memory.forward(token, range(count)),
        "products": lambda: [head.as_linear(hidden), *(module(x) for module, x in wide)],
    }
    for number in range(given.rounds + 1):
        spent = {}
        for name, compute in work.items():
            timed, _ = _timed(lambda compute=compute: [mx.eval(compute()) for _ in range(STEPS)])
            spent[name] = timed["cpu"] / STEPS * 1e3
        if number:
            row.add(**spent, limit=spent["mlx-lm"] / spent["products"])


def _inputs(module: nn.Module) -> int:
    numbers = module["weight"].shape[1]
    return numbers * 32 // module.bits if isinstance(module, nn.QuantizedLinear) else numbers


PARTS = [
    Column("mlx-lm", "ms", "lower"),
    Column("tinytale", "ms", "lower"),
    Column("products", "ms"),
    Column("limit", "x"),
]
STEPS = 8
FIGURES = [
    Column("first token", "ms", "lower"),
    Column("prefill", "tokens/s", "higher"),
    Column("prefill by CPU", "tokens/CPU s", "higher"),
    Column("decode", "tokens/s", "higher"),
    Column("decode by CPU", "tokens/CPU s", "higher"),
    Column("peak", "bytes", "lower"),
    Column("batch", "tokens/s", "higher"),
    Column("batch by CPU", "tokens/CPU s", "higher"),
    Column("batch peak", "bytes", "lower"),
]
QUICK = {"model": ["14m"], "rounds": 2, "prompt": 32, "tokens": 24}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--bits", nargs="+", type=int, default=[32, 4], choices=[32, 8, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to write")


def measure(given: argparse.Namespace, report: Report) -> None:
    table = report.table("Writing", ["model", "bits", "program"], FIGURES)
    better = [Column(column.name, "x", "higher") for column in FIGURES]
    ratios = report.table("How many times better tinytale is than mlx-lm", ["model", "bits"], better)
    parts = report.table("CPU time of a step", ["model", "bits", "rows"], PARTS)
    for name in given.model:
        for bits in given.bits:
            rows = {program: table.row(name, bits, program) for program in ("tinytale", "mlx-lm")}
            models = both_models(SHAPES[name], bits)
            compare(name, bits, given, models, rows, ratios.row(name, bits), table.notes)
            for count in (1, ROWS):
                take_apart(*models, given, parts.row(name, bits, count))


def compare(
    name: str,
    bits: int,
    given: argparse.Namespace,
    models: tuple[Transformer, Any],
    rows: dict[str, Row],
    ratios: Row,
    notes: list[str],
) -> None:
    """Round by round; a note says it where the two did not write the same."""
    shape = SHAPES[name]
    sides = {"tinytale": Tinytale(models[0]), "mlx-lm": MlxLm(models[1])}
    rng = np.random.default_rng(0)
    ids = rng.integers(0, shape["vocab_size"], given.prompt).tolist()
    many = [rng.integers(0, shape["vocab_size"], given.prompt // 2 + 4 * row).tolist() for row in range(ROWS)]
    same = True
    for number in range(given.rounds + 1):  # the first compiles and allocates, and does not count
        texts, found = [], {}
        for side, program in sides.items():
            one, text = measure_one(program, ids, given.tokens)
            batch, batch_texts = measure_batch(program, many, given.tokens // 2)
            texts.append((text, batch_texts))
            found[side] = one | batch
        same = same and texts[0] == texts[1]
        if number:
            for side, row in rows.items():
                row.add(**found[side])
            for column in FIGURES:
                a, b = (found[side][column.name] for side in sides)
                ratios.add(**{column.name: a / b if column.better == "higher" else b / a})
    notes.append(f"{name}, {bits} bits: both wrote {'the same' if same else '**different**'} tokens")


if __name__ == "__main__":
    main("generation")
