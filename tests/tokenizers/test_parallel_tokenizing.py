"""Several processes count and encode as one does; what travels between them is small."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from other_process import Arrived, send, sizes
from tricky import TRICKY

from tinytale_mlx.errors import UserError
from tinytale_mlx.tokenizers import (
    ByteBPE,
    CharTokenizer,
    LongestMatchTokenizer,
    Tokenizer,
    WordTokenizer,
    bpe_training,
)
from tinytale_mlx.tokenizers.bpe_training import count_words
from tinytale_mlx.tokenizers.huggingface import HuggingFaceTokenizer
from tinytale_mlx.tokenizers.splitting import TextRules, grouped

SPECIALS = ("<|eos|>", "the end")


def wrapped(corpus: list[str], folder: Path) -> HuggingFaceTokenizer:
    ByteBPE.train(corpus, 500).save(folder)
    return HuggingFaceTokenizer.load(folder)


KINDS: dict[str, Callable[[list[str], Path], Tokenizer]] = {
    "bpe": lambda corpus, _: ByteBPE.train(corpus, 500),
    "longest": lambda corpus, _: LongestMatchTokenizer.from_bpe(ByteBPE.train(corpus, 500)),
    "char": lambda corpus, _: CharTokenizer.train(corpus),
    "word": lambda corpus, _: WordTokenizer.train(corpus, 60),
    "huggingface": wrapped,
}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe_training, "BATCH", 3000)


def test_the_counts_are_the_same(corpus, small_batches):
    """One long document is cut at word borders, special tokens (one holds a space) are not cut."""
    document = "".join(corpus).replace("cat", "the end").replace("dog", "<|eos|>") * 4
    rules = TextRules("gpt4", "NFC", True)
    alone = count_words(document, rules, SPECIALS)
    shared = count_words(document, rules, SPECIALS, workers=2)
    assert list(shared.items()) == list(alone.items())  # in the same order, too
    words = itertools.chain.from_iterable(map(rules.words, document.replace("the end", "<|eos|>").split("<|eos|>")))
    assert alone == bpe_training.Counter(words)
    assert len(list(grouped([document], 3000))) == 1 < len(document) / 3000


def test_training_is_the_same(corpus, small_batches, tmp_path):
    path, seen = tmp_path / "corpus.txt", list[tuple[str, int, int]]()
    path.write_text("".join(corpus), encoding="utf-8", newline="")
    shared = ByteBPE.train([path], 500, workers=2, progress=lambda *report: seen.append(report))
    assert shared.fingerprint == ByteBPE.train([path], 500).fingerprint
    reading = [(done, total) for stage, done, total in seen if stage == "reading"]
    assert len(reading) == 2
    assert reading[-1] == (sum(map(len, corpus)), 0)


def test_words_are_the_same(corpus, small_batches):
    assert WordTokenizer.train(corpus, 60, workers=2).vocab == WordTokenizer.train(corpus, 60).vocab


@pytest.mark.parametrize("kind", ["bpe", "huggingface"])
def test_the_ids_are_the_same(kind, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("tinytale_mlx.tokenizers.base.BATCH", 500)
    tokenizer = KINDS[kind](corpus, tmp_path)
    texts = ["", *TRICKY, *corpus, "", "x<|eos|>" * 30]
    alone = tokenizer.encode_batch(texts)
    assert alone == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(iter(texts), workers=2) == alone


class Journey(NamedTuple):
    """Tokenizers that have encoded the corpus before they were sent, each by its kind."""

    sent: dict[str, Tokenizer]
    sizes: dict[str, dict[str, int]]
    """Before they encoded anything."""
    ids: dict[str, list[list[int]]]
    arrived: dict[str, Arrived]


@pytest.fixture(scope="module")
def journey(corpus, tmp_path_factory) -> Journey:
    sent = {kind: make(corpus, tmp_path_factory.mktemp(kind)) for kind, make in KINDS.items()}
    new = {kind: sizes(tokenizer) for kind, tokenizer in sent.items()}
    ids = {kind: tokenizer.encode_batch(corpus) for kind, tokenizer in sent.items()}
    return Journey(sent, new, ids, send(sent, corpus))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_survives_the_way_to_another_process(kind, journey):
    tokenizer, there = journey.sent[kind], journey.arrived[kind]
    assert there.type is type(tokenizer)
    assert there.fingerprint == tokenizer.fingerprint
    assert (there.special_ids, there.specials) == (tokenizer.special_ids, tokenizer.specials)
    assert there.begins_with_bos == tokenizer.begins_with_bos
    assert there.ids == journey.ids[kind]
    assert there.sizes == journey.sizes[kind]  # the words that are remembered by now stay here


@pytest.mark.parametrize("kind", ["bpe", "longest"])
def test_what_is_remembered_stays_here(kind, journey):
    assert len(journey.sent[kind]._words) > 50
    assert journey.arrived[kind].sizes["_words"] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_come_as_arrays_in_order(bpe, workers):
    batches = [["the cat", "", "a dog<|eos|>"], [], ["mat"] * 3]
    arrays = list(bpe.encode_batches(batches, workers=workers))
    for texts, (ids, lengths) in zip(batches, arrays, strict=True):
        assert (ids.dtype, lengths.dtype) == (np.uint32, np.int64)
        expected = [bpe.encode(text, special=False) for text in texts]
        assert lengths.tolist() == [len(one) for one in expected]
        assert ids.tolist() == [token for one in expected for token in one]
    ((ids, _),) = bpe.encode_batches([["<|eos|>"]], special=True, workers=workers)
    assert ids.tolist() == [bpe.eos_id]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_read_as_they_are_asked_for(bpe, workers):
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield [f"text {number}"]

    results = bpe.encode_batches(endless(), workers=workers)
    first = [next(results)[0].tolist() for _ in range(3)]
    assert first == [bpe.encode(f"text {number}") for number in range(3)]
    assert len(read) <= 3 + 2 * workers


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_text_arrives(bpe, workers):
    with pytest.raises(UserError, match=r"lone surrogate U\+D83D"):
        bpe.encode_batch(["fine", "half a smile \ud83d"], workers=workers)


def test_no_workers(bpe):
    with pytest.raises(UserError, match="workers must be at least 1, not 0"):
        bpe.encode_batch(["x"], workers=0)
    with pytest.raises(UserError, match="workers must be at least 1, not -1"):
        ByteBPE.train("x", 300, workers=-1)
