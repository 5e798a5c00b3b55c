"""Text streams through: what is held at a time does not grow with it."""

import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from tinytale_mlx.tokenizers import ByteBPE, CharTokenizer, base, bpe_training, simple

SENTENCE = "the cat sat on the mat, and the dog's café was open in 2024.\n"


def stream(characters: int) -> Iterator[str]:
    for _ in range(characters // len(SENTENCE)):
        yield SENTENCE


def peak(work: Callable[[], object]) -> int:
    """Bytes that Python held at most while it worked, beyond those before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_encode_iterable(bpe: ByteBPE):
    assert peak(lambda: sum(1 for _ in bpe.encode_iterable(stream(1_000_000)))) < 300_000


def test_encode_batches(bpe: ByteBPE):
    batches = ([text] * 100 for text in stream(20_000))
    assert peak(lambda: sum(len(ids) for ids, _ in bpe.encode_batches(batches))) < 300_000
    assert base.BATCH <= 4 << 20


def test_training(monkeypatch: pytest.MonkeyPatch):
    for module in (bpe_training, simple):
        assert module.BATCH <= 4 << 20
        monkeypatch.setattr(module, "BATCH", 20_000)
    assert peak(lambda: ByteBPE.train(stream(1_000_000), 270)) < 600_000
    assert peak(lambda: CharTokenizer.train(stream(1_000_000))) < 600_000
