"""How fast are our tokenizer's training and encoding beside the native libraries, and how much memory do they take?

    python -m tinytale_mlx.benchmarks.tokenizers --data stories.jsonl shakespeare.txt --repeat-text 4

Every measurement runs in a process of its own, the programs take turns, and the figures are medians over the rounds.
All encoders use one vocabulary, the one that ours learned, so that they do the same work. Without `--data` the text is
12 MB of the embedded tales. Needs the `peers` extra for tiktoken; without it its rows say so.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tinytale_mlx.data import sources
from tinytale_mlx.recipe import DataRecipe
from tinytale_mlx.tokenizers import ByteBPE

from .machine import facts, resident

VOCABULARY = 8192
SMALL_TEXT, SMALL_VOCABULARY = 133_000, 500
LONG_TEXT = 100 << 20  # bytes, for the memory of encode_iterable
PEERS = {"tokenizers": "Hugging Face tokenizers", "tiktoken": "tiktoken", "sentencepiece": "SentencePiece (BPE)"}


# ---------------------------------------------------------------------- one measurement, in its own process
Work = Callable[[], Any]


def train_ours(texts: list[str], _: Path, workers: int) -> Work:
    return lambda: ByteBPE.train(texts, VOCABULARY, workers=workers)


def train_small(texts: list[str], _: Path, workers: int) -> Work:
    small = "".join(texts)[:SMALL_TEXT]
    return lambda: ByteBPE.train(small, SMALL_VOCABULARY, workers=workers)


def train_tokenizers(texts: list[str], _: Path, __: int) -> Work:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )  # type: ignore[call-arg]
    return lambda: tokenizer.train_from_iterator(texts, trainer)


def train_sentencepiece(texts: list[str], _: Path, workers: int) -> Work:
    import io

    import sentencepiece

    lines = [line for text in texts for line in text.splitlines() if line]
    return lambda: sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=io.BytesIO(),
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        num_threads=workers,
        minloglevel=2,
        input_sentence_size=0,
    )


def encode_ours(texts: list[str], directory: Path, workers: int) -> Work:
    tokenizer = ByteBPE.load(directory)
    if workers == 1:
        return lambda: tokenizer.encode_batch(texts)
    return lambda: tokenizer.encode_batch(texts, workers=workers)


def encode_tokenizers(texts: list[str], directory: Path, _: int) -> Work:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return lambda: [one.ids for one in tokenizer.encode_batch(texts, add_special_tokens=False)]


def encode_tiktoken(texts: list[str], directory: Path, _: int) -> Work:
    from .peers.tiktoken_bpe import encoding

    theirs = encoding(ByteBPE.load(directory))
    return lambda: theirs.encode_ordinary_batch(texts, num_threads=1)


WORK: dict[tuple[str, str], Callable[[list[str], Path, int], Work]] = {
    ("train", "tinytale"): train_ours,
    ("train", "tokenizers"): train_tokenizers,
    ("train", "sentencepiece"): train_sentencepiece,
    ("small", "tinytale"): train_small,
    ("encode", "tinytale"): encode_ours,
    ("encode", "tokenizers"): encode_tokenizers,
    ("encode", "tiktoken"): encode_tiktoken,
}


def measure(task: str, program: str, workers: int, folder: Path) -> dict[str, Any]:
    """Seconds of the work in this process: cold is the first time, warm the second. For encoding also the ids' sum."""
    try:
        work = WORK[task, program](json.loads((folder / "texts.json").read_text()), folder / "tokenizer", workers)
    except ImportError as error:
        return {"missing": str(error)}
    seconds, result = [], []
    for _ in range(2 if task == "encode" else 1):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    check = sum(map(sum, result)) if task == "encode" else None
    return {"cold": seconds[0], "warm": seconds[-1], "check": check}


def measure_memory(folder: Path) -> dict[str, Any]:
    """What `encode_iterable` over a long text adds to the memory of the process, looked at often, in MiB."""
    tokenizer = ByteBPE.load(folder / "tokenizer")
    with open(folder / "lines.txt", encoding="utf-8") as file:
        texts = list(file)

    def lines(size: int) -> Iterator[str]:
        done = 0
        while done < size:
            for text in texts:
                done += len(text)
                yield text

    for _ in tokenizer.encode_iterable(lines(1 << 20)):  # the interpreter's own growth is not the point
        pass
    before = most = resident()
    tokens = 0
    for _ in tokenizer.encode_iterable(lines(LONG_TEXT)):
        tokens += 1
        if tokens % 100_000 == 0:
            most = max(most, resident())
    return {"grown": (most - before) / (1 << 20), "tokens": tokens}


# ---------------------------------------------------------------------- the whole comparison
def in_process(task: str, program: str, workers: int, folder: Path) -> dict[str, Any]:
    """One measurement in a fresh process, held to `workers` threads."""
    threads = {name: str(workers) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
    parallel = {"TOKENIZERS_PARALLELISM": "true" if workers > 1 else "false"}
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--measure", task, program, str(workers)]
    done = subprocess.run(
        [*command, "--folder", str(folder)],
        env={**os.environ, **threads, **parallel},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or ["it failed"])[-1]}
    return json.loads(done.stdout)


def compare(texts: list[str], rounds: int) -> dict[str, Any]:
    """Medians of interleaved rounds. Speeds in MB (10^6 bytes of UTF-8) a second."""
    runs = [(task, program, workers) for task, program in WORK for workers in (1, 2) if _worth(task, program, workers)]
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {run: [] for run in runs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts.json").write_text(json.dumps(texts))
        lines = [line for text in texts for line in text.splitlines(keepends=True)]
        (folder / "lines.txt").write_text("".join(lines[:5000]), encoding="utf-8")
        ByteBPE.train(texts, VOCABULARY).save(folder / "tokenizer")
        for _ in range(rounds):
            for run in runs:
                found[run].append(in_process(*run, folder))
        memory = in_process("memory", "tinytale", 1, folder)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    rows = [_row(run, results, megabytes) for run, results in found.items()]
    checks = {
        result["check"]
        for (task, *_), results in found.items()
        if task == "encode"
        for result in results
        if "check" in result
    }
    return {"megabytes": megabytes, "rows": rows, "memory": memory, "same_ids": len(checks) == 1}


def _worth(task: str, program: str, workers: int) -> bool:
    return workers == 1 or (program in ("tinytale", "tokenizers") and task != "small")


def _row(run: tuple[str, str, int], results: list[dict[str, Any]], megabytes: float) -> dict[str, Any]:
    task, program, workers = run
    row: dict[str, Any] = {"task": task, "program": PEERS.get(program, program), "workers": workers}
    if any("missing" in result for result in results):
        return row | {"missing": next(result["missing"] for result in results if "missing" in result)}
    for kind in ("cold", "warm") if task == "encode" else ("cold",):
        seconds = [result[kind] for result in results]
        row |= {f"{kind}_seconds": statistics.median(seconds), f"{kind}_range": [min(seconds), max(seconds)]}
        row[f"{kind}_mb_per_second"] = megabytes / statistics.median(seconds)
    return row


def show(report: dict[str, Any]) -> None:
    print(f"{report['megabytes']:.1f} MB of text, a vocabulary of {VOCABULARY:,}")
    for row in report["rows"]:
        name = (
            f"{row['task']:7} {row['program']:24} {row['workers']} {'process ' if row['workers'] == 1 else 'workers'}"
        )
        if "missing" in row:
            print(f"{name}  {row['missing']}")
        elif row["task"] == "encode":
            print(f"{name}  {row['cold_mb_per_second']:6.1f} MB/s cold, {row['warm_mb_per_second']:6.1f} warm")
        else:
            low, high = row["cold_range"]
            print(f"{name}  {row['cold_seconds']:6.2f} s (from {low:.2f} to {high:.2f})")
    print("all encoders gave the same ids" if report["same_ids"] else "the encoders gave DIFFERENT ids")
    memory = report["memory"]
    print(
        f"encode_iterable over {LONG_TEXT >> 20} MiB: "
        + (
            memory.get("missing")
            or f"{memory['grown']:.1f} MiB above the memory before it, {memory['tokens']:,} tokens"
        )
    )


def read_texts(files: list[str], times: int) -> list[str]:
    data = DataRecipe(source=files) if files else DataRecipe(documents=20_000)
    return [document for document in sources.documents(data, seed=0) if isinstance(document, str)] * times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[], help="files to train on and to encode")
    parser.add_argument("--repeat-text", type=int, default=1, help="so many copies of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=3, metavar=("TASK", "PROGRAM", "WORKERS"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        task, program, workers = options.measure
        memory = task == "memory"
        print(
            json.dumps(
                measure_memory(options.folder) if memory else measure(task, program, int(workers), options.folder)
            )
        )
        return
    report = compare(read_texts(options.data, options.repeat_text), options.rounds)
    if options.json:
        print(json.dumps({"machine": facts(), **report}))
        return
    for key, value in facts().items():
        print(f"{key:>14}  {value}")
    show(report)


if __name__ == "__main__":
    main()
