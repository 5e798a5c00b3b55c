"""A small corpus, a tokenizer trained on it, and the shared data where it is present."""

import random
from pathlib import Path

import pytest
from tricky import TRICKY

from tinytale_mlx.tokenizers import ByteBPE

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """A small corpus with every tricky text in it, repeated so that pairs are frequent."""
    sentence = "the cat sat on a mat and it's said that the dog's café wasn’t open in 2024, 日本 日本語 😀"
    words = sentence.split()
    dice = random.Random(0)
    sentences = [" ".join(dice.choices(words, k=12)) + ".\n" for _ in range(60)]
    return [*sentences, *TRICKY, *TRICKY]


@pytest.fixture(scope="session")
def bpe(corpus: list[str]) -> ByteBPE:
    return ByteBPE.train(corpus, 600)


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED
