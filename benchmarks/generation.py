"""How fast does a model write, beside mlx-lm with the same weights?

    python -m tinytale_mlx.benchmarks.generation --model 14m --bits 32 4 --rounds 5

Random weights; greedy; both sides in one process, in turns, so a busy machine slows both. A round reads a prompt and
writes on from it, alone and eight at a time. The figures of a side are medians over the rounds; a ratio is the median
of the rounds' ratios. CPU seconds count all threads, those too that wait in a BLAS; with MKL_NUM_THREADS=1 none do.
Peak memory is what MLX counts beyond the weights.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tinytale_mlx import device
from tinytale_mlx.generation.batch import generate_batch
from tinytale_mlx.generation.engine import generate_ids
from tinytale_mlx.models import Transformer
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig
from tinytale_mlx.tuning.quantized_matmul import use_calibrated_product

from .machine import facts

CONTEXT = 512
SHAPES: dict[str, dict[str, int]] = {
    "14m": {"vocab_size": 8192, "hidden_size": 384, "layers": 6, "heads": 6, "intermediate_size": 1024},
    "51m": {"vocab_size": 50257, "hidden_size": 512, "layers": 8, "heads": 8, "intermediate_size": 1408},
}
ROWS = 8


def both_models(shape: dict[str, int], bits: int) -> tuple[Transformer, Any]:
    """Ours, and mlx-lm's Llama with the same weights; below 32 bits quantized by the same call."""
    from mlx_lm.models import llama

    ours = Transformer(ModelConfig.model_validate({**shape, "context": CONTEXT}))
    theirs = llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=shape["hidden_size"],
            num_hidden_layers=shape["layers"],
            intermediate_size=shape["intermediate_size"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["heads"],
            rms_norm_eps=1e-5,
            vocab_size=shape["vocab_size"],
            max_position_embeddings=CONTEXT,
            rope_theta=10000.0,
            tie_word_embeddings=True,
        )
    )
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
        "first token ms": first["seconds"] * 1e3,
        "prefill tokens/s": len(prompt) / first["seconds"],
        "prefill tokens/CPU s": len(prompt) / first["cpu"],
        "decode tokens/s": (count - 1) / rest["seconds"],
        "decode tokens/CPU s": (count - 1) / rest["cpu"],
        "peak MB": max(first["peak"], rest["peak"]),
    }, [*ids, *more]


def measure_batch(side: Tinytale | MlxLm, prompts: list[list[int]], count: int) -> tuple[dict[str, float], Any]:
    """Eight texts from prompts of different lengths, reading them included."""
    timed, ids = _timed(lambda: side.batch(prompts, count))
    tokens = len(prompts) * count
    return {
        "batch tokens/s": tokens / timed["seconds"],
        "batch tokens/CPU s": tokens / timed["cpu"],
        "batch peak MB": timed["peak"],
    }, ids


def _timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    mx.synchronize()
    mx.reset_peak_memory()
    held = mx.get_active_memory()
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    return {**seconds, "peak": (mx.get_peak_memory() - held) / 1e6}, result


def measure(name: str, bits: int, rounds: int, prompt: int, count: int) -> list[dict[str, Any]]:
    """A row for each figure: both sides, and how many times better ours is."""
    shape = SHAPES[name]
    ours, theirs = both_models(shape, bits)
    sides = {"tinytale": Tinytale(ours), "mlx-lm": MlxLm(theirs)}
    rng = np.random.default_rng(0)
    ids = rng.integers(0, shape["vocab_size"], prompt).tolist()
    many = [rng.integers(0, shape["vocab_size"], prompt // 2 + 4 * row).tolist() for row in range(ROWS)]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    same = True
    for number in range(rounds + 1):  # the first compiles and allocates, and does not count
        texts = []
        for side, program in sides.items():
            one, text = measure_one(program, ids, count)
            batch, batch_texts = measure_batch(program, many, count // 2)
            texts.append((text, batch_texts))
            if number:
                found[side].append(one | batch)
        same = same and texts[0] == texts[1]
    rows = []
    for figure in found["tinytale"][0]:
        values = {side: [each[figure] for each in found[side]] for side in sides}
        ratios = [a / b for a, b in zip(values["tinytale"], values["mlx-lm"], strict=True)]
        medians = {side: statistics.median(numbers) for side, numbers in values.items()}
        rows.append(
            {"model": name, "bits": bits, "figure": figure, **medians, "ratio": statistics.median(ratios), "same": same}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--bits", nargs="+", type=int, default=[32, 4], choices=[32, 8, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to write")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device.configure()
    rows = []
    for name in options.model:
        for bits in options.bits:
            rows += measure(name, bits, options.rounds, options.prompt, options.tokens)
    if options.json:
        print(json.dumps({"machine": facts(), "rows": rows}))
        return
    for key, value in facts().items():
        print(f"{key:>14}  {value}")
    print(f"{'model':6} {'bits':>4}  {'':24} {'tinytale':>10} {'mlx-lm':>10} {'ratio':>7}  tokens")
    for row in rows:
        print(
            f"{row['model']:6} {row['bits']:4}  {row['figure']:24} {row['tinytale']:10.1f} {row['mlx-lm']:10.1f} "
            f"{row['ratio']:7.2f}  {'the same' if row['same'] else 'DIFFERENT'}"
        )


if __name__ == "__main__":
    main()
