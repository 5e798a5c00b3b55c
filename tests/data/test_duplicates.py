"""Equal and much alike documents are found, others are not, in little memory."""

import random
import subprocess
import sys
from statistics import fmean, pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytale_mlx.data.duplicates import MINIMA, RUN, Duplicates, Fingerprint, Table, band_rows, estimate, fingerprint

WORDS = [f"word{number}" for number in range(5000)]
FROZEN = (5584658111298650731, 8694657949371413997, "38e023f2a76c51e7")


def pair(similarity: float, length: int, rng: random.Random) -> tuple[str, str, float]:
    """Two texts, the second with another end, and the true share of five-word runs in common, near `similarity`."""
    first = rng.choices(WORDS, k=length)
    same = round(2 * similarity * (length - RUN + 1) / (1 + similarity)) + RUN - 1 if similarity else 0
    second = first[:same] + rng.choices(WORDS, k=length - same)
    one, other = ({tuple(text[i : i + RUN]) for i in range(length - RUN + 1)} for text in (first, second))
    return " ".join(first), " ".join(second), len(one & other) / len(one | other)


@pytest.mark.parametrize("length", [40, 300, 1500])
@pytest.mark.parametrize("similarity", [0.0, 0.5, 0.8, 0.95])
def test_estimated_similarity_is_the_true_one(similarity: float, length: int) -> None:
    rng = random.Random(0)
    errors = []
    for _ in range(60):
        first, second, true = pair(similarity, length, rng)
        errors.append(estimate(fingerprint(first, 0.8).minima, fingerprint(second, 0.8).minima) - true)
        assert abs(true - similarity) < 0.03
    expected = (similarity * (1 - similarity) / MINIMA) ** 0.5  # of a binomial
    assert abs(fmean(errors)) < 3 * expected / 60**0.5 + 0.003
    assert pstdev(errors) < 1.35 * expected + 0.01


@pytest.mark.parametrize(("below", "threshold", "above"), [(0.35, 0.5, 0.65), (0.65, 0.8, 0.9), (0.85, 0.95, 0.99)])
def test_recall_about_the_threshold(below: float, threshold: float, above: float) -> None:
    """About half of those just as alike as asked for; nearly all well above, nearly none well below."""
    rng = random.Random(1)

    def found(similarity: float) -> float:
        hits = 0
        for _ in range(80):
            first, second, _ = pair(similarity, 300, rng)
            duplicates = Duplicates(threshold)
            assert duplicates.find(fingerprint(first, threshold)) is None
            hits += duplicates.find(fingerprint(second, threshold)) == "near_duplicate"
        return hits / 80

    assert found(below) < 0.05
    assert 0.2 < found(threshold) < 0.8
    assert found(above) > 0.95


def test_alike_among_many() -> None:
    rng = random.Random(2)
    duplicates = Duplicates(0.8)
    texts = [" ".join(rng.choices(WORDS, k=80)) for _ in range(2000)]
    assert [duplicates.find(fingerprint(text, 0.8)) for text in texts] == [None] * 2000
    edited = [f"{text.upper()}, and so on." for text in texts]
    assert [duplicates.find(fingerprint(text, 0.8)) for text in edited].count("near_duplicate") > 1980
    assert duplicates.find(fingerprint(texts[7], 0.8)) == "duplicate"
    assert duplicates.nbytes / 2000 < 900


def test_siblings_do_not_hide_each_other() -> None:
    """Texts from one template share many bands, and still a copy of each is found."""
    rng = random.Random(3)
    base = rng.choices(WORDS, k=164)
    siblings = [base + rng.choices(WORDS, k=36) for _ in range(200)]
    copies = [[*words[:-4], *rng.choices(WORDS, k=4)] for words in siblings]
    duplicates = Duplicates(0.8)
    kept = [duplicates.find(fingerprint(" ".join(words), 0.8)) is None for words in siblings]
    assert sum(kept) > 190
    found = [duplicates.find(fingerprint(" ".join(words), 0.8)) for words in copies]
    assert found.count("near_duplicate") > 195


def test_short_texts_and_texts_without_words() -> None:
    duplicates = Duplicates(0.8)
    texts = [
        "One.",
        "one",
        "two",
        "one two",
        "Two, one",
        "one two three four",
        "ONE two, three four!",
        "...",
        "!!!",
        "...",
    ]
    expected = [None, "near_duplicate", None, None, None, None, "near_duplicate", None, None, "duplicate"]
    assert [duplicates.find(fingerprint(text, 0.8)) for text in texts] == expected


def test_case_and_punctuation_count_for_equal_ones_only() -> None:
    texts = ["It was a dark, stormy night.", "it was a dark stormy night", "It was a dark, stormy night."]
    exact = Duplicates()
    assert [exact.find(fingerprint(text)) for text in texts] == [None, None, "duplicate"]
    near = Duplicates(1.0)
    assert [near.find(fingerprint(text, 1.0)) for text in texts] == [None, "near_duplicate", "duplicate"]


def test_fingerprints_are_the_same_everywhere() -> None:
    """In every process and on every machine, or cleaning would not be a function of the recipe."""
    text = "Once upon a time a fox, naïve and 5 years old, ran. " * 60
    code = f"from tinytale_mlx.data.duplicates import fingerprint; print(tuple(fingerprint({text!r}, 0.8)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(tuple(fingerprint(text, 0.8)))
    found = fingerprint(text, 0.8)
    assert (found.digest, found.bands[0], found.minima[:8].hex()) == FROZEN


def test_band_rows() -> None:
    assert [band_rows(similarity) for similarity in (0.01, 0.5, 0.8, 0.9, 1.0)] == [1, 3, 8, 14, 128]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))), st.integers(0, 63))
def test_table_is_a_dict(pairs: list[tuple[int, int]], shift: int) -> None:
    table, expected = Table(), dict[int, int]()
    for key, value in pairs:
        key = (key >> shift) or 1  # small ones collide
        assert table.get(key) == expected.get(key)
        assert table.add(key, value) == (key not in expected)
        expected.setdefault(key, value)
    assert len(table) == len(expected)
    assert all(table.get(key) == value for key, value in expected.items())


def test_table_grows_and_stays_small() -> None:
    table = Table()
    keys = [((number + 1) * 0x9E3779B97F4A7C15) % 2**64 for number in range(100_000)]
    for number, key in enumerate(keys):
        assert table.add(key, number)
    assert [table.get(key) for key in keys] == list(range(100_000))
    assert table.get(0) is None
    assert 12 < table.nbytes / len(table) <= 36


def test_exact_duplicates_take_constant_memory() -> None:
    duplicates = Duplicates()
    for number in range(20_000):
        assert duplicates.find(Fingerprint(number * 0x9E3779B97F4A7C15 % 2**64 + 1)) is None
    assert duplicates.nbytes / 20_000 <= 37
