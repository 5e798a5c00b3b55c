"""Preparing data: how fast beside the bare tokenizer, in how much memory, and how full and how quick are batches?

    python -m tinytale_mlx.benchmarks.data --rounds 3 --large 1000

The text is that of `--data`, else the embedded tales, repeated up to 200 MB. Every measurement runs in a process of its
own. "Encode" is `encode_batch` on all documents in memory, on one core; preparing also reads and parses the file,
splits, and writes the tokens.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tinytale_mlx.data import sources
from tinytale_mlx.data.batches import Batches, Shuffled, WindowRows
from tinytale_mlx.data.binning import BinnedBatches
from tinytale_mlx.data.masks import conversation_set
from tinytale_mlx.data.packing import PackedRows
from tinytale_mlx.data.prepare import prepare
from tinytale_mlx.recipe import DataRecipe
from tinytale_mlx.tokenizers import ByteBPE

from .machine import facts, resident

VOCABULARY = 8192
TEXT = 200e6  # bytes
CONTEXTS = (256, 512, 1024)


def measure(task: str, workers: int, folder: Path) -> dict[str, float]:
    """One measurement in this process: seconds; for `memory` also the MiB by which what it holds rose, at most."""
    tokenizer = ByteBPE.load(folder / "tokenizer")
    data = DataRecipe(source=str(folder / "text.jsonl"))
    if task == "encode":
        texts = [one for one in sources.documents(data, 0) if isinstance(one, str)]
    else:
        texts = []
        tokenizer.encode("warm")
    before = resident()
    held = [before]
    look = (lambda *_: held.append(resident())) if task == "memory" else None
    started = time.perf_counter()
    if task == "encode":
        tokenizer.encode_batch(texts, special=False)
    else:
        prepare(sources.documents(data, 0), tokenizer, folder / "shards", report=look, workers=workers)
    return {"seconds": time.perf_counter() - started, "mebibytes": (max(held) - before) / (1 << 20)}


def in_process(task: str, workers: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tinytale_mlx.benchmarks.data", "--measure", task, str(workers)]
    done = subprocess.run([*command, "--folder", str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def write_text(texts: list[str], path: Path, size: float) -> float:
    """The texts as JSON Lines, again and again until there are `size` bytes of them; the bytes written of text."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for text in itertools.cycle(texts):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            written += len(text.encode())
            if written >= size:
                return written
    raise AssertionError("a cycle has no end")


def preparation(texts: list[str], tokenizer: ByteBPE, rounds: int) -> dict[str, Any]:
    """Medians of interleaved rounds, MB (10^6 bytes of text) a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder / "tokenizer")
        megabytes = write_text(texts, folder / "text.jsonl", TEXT) / 1e6
        runs = {"encode": ("encode", 1), "prepare": ("prepare", 1), "prepare, 2 workers": ("prepare", 2)}
        seconds: dict[str, list[float]] = {label: [] for label in runs}
        for _ in range(rounds):
            for label, (task, workers) in runs.items():
                seconds[label].append(in_process(task, workers, folder)["seconds"])
    middle = {label: statistics.median(found) for label, found in seconds.items()}
    return {
        "megabytes": megabytes,
        "mb_per_second": {label: megabytes / found for label, found in middle.items()},
        "of_the_encoding_speed": middle["encode"] / middle["prepare"],
        "times_with_2_workers": middle["prepare"] / middle["prepare, 2 workers"],
    }


def memory(texts: list[str], tokenizer: ByteBPE, megabytes: list[int]) -> dict[str, float]:
    """MiB that preparing a text of each size adds to the memory that the process holds, looked at once a megabyte."""
    found = {}
    for size in megabytes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tokenizer.save(folder / "tokenizer")
            write_text(texts, folder / "text.jsonl", size * 1e6)
            found[f"{size} MB"] = in_process("memory", 1, folder)["mebibytes"]
    return found


def batch_times(calls: int = 2000) -> dict[str, float]:
    """Milliseconds for a batch of 8 x 512 from 100 million mapped tokens, steps in no order."""
    with tempfile.NamedTemporaryFile() as file:
        np.memmap(file.name, "<u2", "w+", shape=(100_000_000,)).flush()
        batches = Batches(Shuffled(WindowRows(np.memmap(file.name, "<u2", "r"), 512, 0), 0), 8)
        times = []
        for step in np.random.default_rng(0).integers(0, 24_000, calls).tolist():
            started = time.perf_counter()
            batches.at(step)
            times.append(1000 * (time.perf_counter() - started))
    return {"median": statistics.median(times), "99 % are below": sorted(times)[int(0.99 * calls)]}


def filled(files: list[str], tokenizer: ByteBPE) -> dict[str, dict[str, float]]:
    """For each file and context the share of real tokens in padded, binned and packed batches of 8 rows."""
    found = {}
    for file, context in itertools.product(files, CONTEXTS):
        examples = conversation_set(sources.documents(DataRecipe(source=file), 0), tokenizer, context)
        lengths = np.diff(examples.offsets) - 1
        rows = lengths[: len(lengths) // 8 * 8].reshape(-1, 8)
        found[f"{Path(file).parent.name}/{Path(file).name}, context {context}"] = {
            "padded": float(rows.sum() / (8 * rows.max(axis=1)).sum()),
            "binned": BinnedBatches(examples.tokens, examples.weights, examples.offsets, 8 * context, 0).filled,
            "packed": PackedRows(examples.tokens, examples.offsets, context).filled,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[], help="files to prepare")
    parser.add_argument("--fill", nargs="*", default=[], help="files whose examples are padded, binned and packed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=100, help="MB of the larger text whose memory is measured")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("TASK", "WORKERS"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], int(options.measure[1]), options.folder)))
        return
    data = DataRecipe(source=options.data) if options.data else DataRecipe(documents=20_000)
    texts = [one for one in sources.documents(data, 0) if isinstance(one, str)]
    tokenizer = ByteBPE.train(texts, VOCABULARY)
    report = {
        "preparation": preparation(texts, tokenizer, options.rounds),
        "memory": memory(texts, tokenizer, [10, options.large]),
        "batch_milliseconds": batch_times(),
        "filled": filled(options.fill, tokenizer),
    }
    if options.json:
        print(json.dumps({"machine": facts(), **report}))
        return
    for key, value in facts().items():
        print(f"{key:>14}  {value}")
    done = report["preparation"]
    for label, speed in done["mb_per_second"].items():
        print(f"{label:20} {speed:6.1f} MB/s")
    print(
        f"preparing has {done['of_the_encoding_speed']:.2f} of the encoding's speed; "
        f"two workers make it {done['times_with_2_workers']:.2f} times as fast ({os.cpu_count()} cores)"
    )
    for size, grown in report["memory"].items():
        print(f"memory to prepare {size:>8}: {grown:.0f} MiB above that before it")
    times = report["batch_milliseconds"]
    print(f"a batch of 8 x 512: {times['median']:.2f} ms (99 % below {times['99 % are below']:.2f})")
    for name, shares in report["filled"].items():
        print(f"{name}: " + ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items()) + " real tokens")


if __name__ == "__main__":
    main()
