"""Preparing data: how fast beside the bare tokenizer, in how much memory, and how full and how quick are batches?

    tinytale bench data --rounds 3 --large 1000

The text is that of `--data`, else the embedded tales, repeated up to `--text` MB. Every measurement runs in a process
of its own. "Encode" is `encode_batch` on all documents in memory, on one core; preparing also reads and parses the
file, splits, and writes the tokens.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from tinytale_mlx.data import sources
from tinytale_mlx.data.batches import Batches, Shuffled, WindowRows
from tinytale_mlx.data.binning import BinnedBatches
from tinytale_mlx.data.masks import conversation_set
from tinytale_mlx.data.packing import PackedRows
from tinytale_mlx.data.prepare import prepare
from tinytale_mlx.recipe import DataRecipe
from tinytale_mlx.tokenizers import ByteBPE

from .apart import Figures, call, excused
from .machine import resident
from .results import Column, Report
from .runner import main

VOCABULARY = 8192
CONTEXTS = (256, 512, 1024)
RUNS = {"encode": ("encode", 1), "prepare": ("prepare", 1), "prepare, 2 workers": ("prepare", 2)}
QUICK = {"rounds": 2, "text": 10, "large": 30, "documents": 4000}


def work(task: str, workers: int, place: str) -> Figures:
    """One measurement in this process: seconds; for `memory` also the bytes by which what it holds rose, at most."""
    folder = Path(place)
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
    return {"seconds": time.perf_counter() - started, "grown": max(held) - before}


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


def add_preparation(report: Report, texts: list[str], tokenizer: ByteBPE, given: argparse.Namespace) -> None:
    """Interleaved rounds. MB are 10^6 bytes of text."""
    columns = [Column("speed", "MB/s", "higher"), Column("beside encoding", "x", "higher")]
    table = report.table(f"Preparing {given.text} MB", ["work"], columns)
    rows = {name: table.row(name) for name in RUNS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder / "tokenizer")
        megabytes = write_text(texts, folder / "text.jsonl", given.text * 1e6) / 1e6
        for _ in range(given.rounds):
            seconds = {name: call(work, *run, str(folder))["seconds"] for name, run in RUNS.items()}
            for name, row in rows.items():
                row.add(speed=megabytes / seconds[name], beside_encoding=seconds["encode"] / seconds[name])


def add_memory(report: Report, texts: list[str], tokenizer: ByteBPE, megabytes: list[int]) -> None:
    """What preparing a text of each size adds to the memory that the process holds, looked at once a megabyte."""
    table = report.table("Memory to prepare a text", ["MB of text"], [Column("grown by", "bytes", "lower")])
    for size in megabytes:
        row = table.row(size)
        with tempfile.TemporaryDirectory() as name, excused(row):
            folder = Path(name)
            tokenizer.save(folder / "tokenizer")
            write_text(texts, folder / "text.jsonl", size * 1e6)
            row.set(grown_by=call(work, "memory", 1, str(folder))["grown"])


def add_batch_times(report: Report, calls: int = 2000) -> None:
    """Milliseconds for a batch of 8 x 512 from 100 million mapped tokens, steps in no order."""
    columns = [Column("median", "ms", "lower"), Column("99 % are below", "ms", "lower")]
    row = report.table("A batch from mapped tokens", ["rows x tokens"], columns).row("8 x 512")
    with tempfile.NamedTemporaryFile() as file:
        np.memmap(file.name, "<u2", "w+", shape=(100_000_000,)).flush()
        batches = Batches(Shuffled(WindowRows(np.memmap(file.name, "<u2", "r"), 512, 0), 0), 8)
        times = []
        for step in np.random.default_rng(0).integers(0, 24_000, calls).tolist():
            started = time.perf_counter()
            batches.at(step)
            times.append(1000 * (time.perf_counter() - started))
    times.sort()
    row.set(**{"median": times[calls // 2], "99 % are below": times[int(0.99 * calls)]})


def add_filled(report: Report, files: list[str], tokenizer: ByteBPE) -> None:
    """For each file and context the share of real tokens in padded, binned and packed batches of 8 rows."""
    columns = [Column(name, "share", "higher") for name in ("padded", "binned", "packed")]
    table = report.table("Real tokens in a batch", ["file", "context"], columns)
    for file, context in itertools.product(files, CONTEXTS):
        examples = conversation_set(sources.documents(DataRecipe(source=file), 0), tokenizer, context)
        lengths = np.diff(examples.offsets) - 1
        rows = lengths[: len(lengths) // 8 * 8].reshape(-1, 8)
        table.row(f"{Path(file).parent.name}/{Path(file).name}", context).set(
            padded=float(rows.sum() / (8 * rows.max(axis=1)).sum()),
            binned=BinnedBatches(examples.tokens, examples.weights, examples.offsets, 8 * context, 0).filled,
            packed=PackedRows(examples.tokens, examples.offsets, context).filled,
        )


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="*", default=[], help="files to prepare")
    parser.add_argument("--documents", type=int, default=20_000, help="embedded tales, without --data")
    parser.add_argument("--fill", nargs="*", default=[], help="files whose examples are padded, binned and packed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text", type=int, default=200, help="MB of the text whose speed is measured")
    parser.add_argument("--large", type=int, default=100, help="MB of the larger text whose memory is measured")


def measure(given: argparse.Namespace, report: Report) -> None:
    data = DataRecipe(source=given.data) if given.data else DataRecipe(documents=given.documents)
    texts = [one for one in sources.documents(data, 0) if isinstance(one, str)]
    tokenizer = ByteBPE.train(texts, VOCABULARY)
    add_preparation(report, texts, tokenizer, given)
    add_memory(report, texts, tokenizer, [10, given.large])
    add_batch_times(report)
    add_filled(report, given.fill, tokenizer)


if __name__ == "__main__":
    main("data")
