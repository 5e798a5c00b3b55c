"""How fast are our tokenizer's training and encoding beside the native libraries, and how much memory do they take?

    tinytale bench tokenizers --peers --data stories.jsonl shakespeare.txt --repeat-text 4

Every measurement runs in a process of its own, the programs take turns, and the figures are medians over the rounds.
All encoders use one vocabulary, the one that ours learned, so that they do the same work. Without `--data` the text is
the embedded tales. Hugging Face tokenizers and SentencePiece come with tinytale; --peers adds tiktoken.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tinytale_mlx.data import sources
from tinytale_mlx.recipe import DataRecipe
from tinytale_mlx.tokenizers import ByteBPE

from .apart import Figures, call, excused
from .machine import resident
from .results import Column, Report, Row
from .runner import main

VOCABULARY = 8192
SMALL_TEXT, SMALL_VOCABULARY = 133_000, 500
PROGRAMS = {"tokenizers": "Hugging Face tokenizers", "sentencepiece": "SentencePiece (BPE)"}
PEERS = ("tiktoken",)
QUICK = {"rounds": 2, "documents": 3000, "long": 8}


# ---------------------------------------------------------------------- one measurement, in its own process
Work = Callable[[], Any]


def train_ours(texts: list[str], directory: Path, workers: int) -> Work:
    size = ByteBPE.load(directory).vocab_size
    return lambda: ByteBPE.train(texts, size, workers=workers)


def train_small(texts: list[str], _: Path, workers: int) -> Work:
    small = "".join(texts)[:SMALL_TEXT]
    return lambda: ByteBPE.train(small, SMALL_VOCABULARY, workers=workers)


def train_tokenizers(texts: list[str], directory: Path, _: int) -> Work:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=ByteBPE.load(directory).vocab_size, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )  # type: ignore[call-arg]
    return lambda: tokenizer.train_from_iterator(texts, trainer)


def train_sentencepiece(texts: list[str], directory: Path, workers: int) -> Work:
    import io

    import sentencepiece

    lines = [line for text in texts for line in text.splitlines() if line]
    size = ByteBPE.load(directory).vocab_size
    return lambda: sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=io.BytesIO(),
        vocab_size=size,
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


def work(task: str, program: str, workers: int, place: str) -> Figures:
    """Seconds of the work in this process: cold is the first time, warm the second. For encoding also the ids' sum."""
    folder = Path(place)
    todo = WORK[task, program](json.loads((folder / "texts.json").read_text()), folder / "tokenizer", workers)
    seconds, result = [], []
    for _ in range(2 if task == "encode" else 1):
        started = time.perf_counter()
        result = todo()
        seconds.append(time.perf_counter() - started)
    check = sum(map(sum, result)) if task == "encode" else None
    return {"cold": seconds[0], "warm": seconds[-1], "check": check}


def memory(place: str, mebibytes: int) -> Figures:
    """What `encode_iterable` over a long text adds to the memory of this process, looked at often."""
    folder = Path(place)
    tokenizer = ByteBPE.load(folder / "tokenizer")
    texts = json.loads((folder / "texts.json").read_text())[:1000]

    def lines(size: int) -> Iterator[str]:
        done = 0
        while done < size:
            for text in texts:
                for line in text.splitlines(keepends=True):
                    done += len(line)
                    yield line

    for _ in tokenizer.encode_iterable(lines(1 << 20)):  # the interpreter's own growth is not the point
        pass
    before = most = resident()
    tokens = 0
    for _ in tokenizer.encode_iterable(lines(mebibytes << 20)):
        tokens += 1
        if tokens % 100_000 == 0:
            most = max(most, resident())
    return {"grown": most - before, "tokens": tokens}


# ---------------------------------------------------------------------- the whole comparison
def held_to(workers: int) -> dict[str, str]:
    """The environment of a process with so many threads."""
    threads = {name: str(workers) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
    return {**threads, "TOKENIZERS_PARALLELISM": "true" if workers > 1 else "false"}


def worth(task: str, program: str, workers: int) -> bool:
    return workers == 1 or (program in ("tinytale", "tokenizers") and task != "small")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="*", default=[], help="files to train on and to encode")
    parser.add_argument("--documents", type=int, default=20_000, help="embedded tales, without --data")
    parser.add_argument("--repeat-text", type=int, default=1, help="so many copies of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--long", type=int, default=100, help="MiB of the text for the memory of encode_iterable")


def measure(given: argparse.Namespace, report: Report) -> None:
    data = DataRecipe(source=given.data) if given.data else DataRecipe(documents=given.documents)
    texts = [one for one in sources.documents(data, seed=0) if isinstance(one, str)] * given.repeat_text
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts.json").write_text(json.dumps(texts))
        tokenizer = ByteBPE.train(texts, VOCABULARY)
        tokenizer.save(folder / "tokenizer")
        report.notes.append(f"{megabytes:.1f} MB (10^6 bytes) of text, a vocabulary of {tokenizer.vocab_size:,}")
        add_speeds(report, name, megabytes, given)
        columns = [Column("grown by", "bytes", "lower"), Column("tokens")]
        row = report.table("Memory of encode_iterable", ["MiB of text"], columns).row(given.long)
        with excused(row):
            found = call(memory, name, given.long, environment=held_to(1))
            row.set(grown_by=found["grown"], tokens=found["tokens"])


def add_speeds(report: Report, folder: str, megabytes: float, given: argparse.Namespace) -> None:
    """Interleaved rounds. MB are 10^6 bytes of UTF-8."""
    keys = ["program", "workers"]
    training = report.table("Training a tokenizer", keys, [Column("time", "s", "lower")])
    small = f"Training on {SMALL_TEXT:,} characters, {SMALL_VOCABULARY} tokens"
    speeds = [Column("first time", "MB/s", "higher"), Column("again", "MB/s", "higher"), Column("sum of ids")]
    tables = {
        "train": training,
        "small": report.table(small, keys, [Column("time", "s", "lower")]),
        "encode": report.table("Encoding, with the same vocabulary", keys, speeds, ["the same ids give the same sum"]),
    }
    rows: dict[tuple[str, str, int], Row] = {}
    for task, program in WORK:
        if program not in PEERS or given.peers:
            for workers in (each for each in (1, 2) if worth(task, program, each)):
                rows[task, program, workers] = tables[task].row(PROGRAMS.get(program, program), workers)
    for _ in range(given.rounds):
        for run, row in rows.items():
            if row.missing is None:
                with excused(row):
                    add_round(row, run[0], call(work, *run, folder, environment=held_to(run[2])), megabytes)


def add_round(row: Row, task: str, found: Figures, megabytes: float) -> None:
    if task == "encode":
        row.add(first_time=megabytes / found["cold"], again=megabytes / found["warm"])
        row.set(sum_of_ids=found["check"])
    else:
        row.add(time=found["cold"])


if __name__ == "__main__":
    main("tokenizers")
