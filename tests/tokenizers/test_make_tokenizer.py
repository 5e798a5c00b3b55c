"""Every key of the recipe's tokenizer section does what it says; tokenizers in folders are found."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import TokenizerRecipe
from tinytale_mlx.tokenizers import (
    ByteBPE,
    CharTokenizer,
    LongestMatchTokenizer,
    SpecialTokens,
    Tokenizer,
    WordTokenizer,
    bpe,
    load_tokenizer,
    make_tokenizer,
    simple,
)

BPE = {"kind": "bpe", "vocab_size": 400}


@pytest.fixture
def make(corpus):
    """make(**keys): the tokenizer of a recipe with these keys, trained on the corpus."""

    def make(**keys: Any) -> Tokenizer:
        return make_tokenizer(TokenizerRecipe(**keys), corpus)

    return make


def test_each_kind(make, corpus):
    assert make(**BPE).fingerprint == ByteBPE.train(corpus, 400).fingerprint
    assert make(kind="char").fingerprint == CharTokenizer.train(corpus).fingerprint
    assert make(kind="word", vocab_size=50).fingerprint == WordTokenizer.train(corpus, 50).fingerprint
    assert TokenizerRecipe().kind == "bpe"


def test_matching(make):
    longest = make(**BPE, matching="longest", lowercase=True)
    assert isinstance(longest, LongestMatchTokenizer)
    assert longest.vocab == make(**BPE, lowercase=True).vocab  # type: ignore[attr-defined]
    assert longest.rules.lowercase


@pytest.mark.parametrize("kind", ["bpe", "word", "char"])
def test_special_tokens(make, kind):
    standard = make(kind=kind, vocab_size=300)
    assert standard.specials == SpecialTokens.standard(2)
    assert make(kind=kind, vocab_size=300, reserved=5).specials == SpecialTokens.standard(5)
    own = make(kind=kind, vocab_size=300, special_tokens=["[A]", "</s>", "<unk>"])
    assert own.special_ids == {"[A]": 0, "</s>": 1, "<unk>": 2}
    assert (own.eos_id, own.bos_id) == (1, None)
    assert make(kind=kind, vocab_size=300, special_tokens=[]).special_ids == {}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"pattern": "gpt4"}, {"pattern": "gpt4"}),
        ({"normalize": "NFKC"}, {"normalize": "NFKC"}),
        ({"lowercase": True}, {"lowercase": True}),
        ({"lowercase": False}, {}),
        ({"min_frequency": 30}, {"min_frequency": 30}),
        ({"min_frequency": 2}, {}),
        ({"max_token_length": 3}, {"max_token_length": 3}),
    ],
)
@pytest.mark.filterwarnings("ignore:the vocabulary has")
def test_keys_of_bpe(make, corpus, keys, expected):
    tokenizer = make(**BPE, **keys)
    assert tokenizer.fingerprint == ByteBPE.train(corpus, 400, **expected).fingerprint
    assert (tokenizer.fingerprint == ByteBPE.train(corpus, 400).fingerprint) == (not expected)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({}, {}), ({"lowercase": True}, {}), ({"lowercase": False}, {"lowercase": False}),
     ({"min_frequency": 30}, {"min_frequency": 30})],
)  # fmt: skip
def test_keys_of_words(make, corpus, keys, expected):
    tokenizer = make(kind="word", vocab_size=70, **keys)
    assert tokenizer.fingerprint == WordTokenizer.train(corpus, 70, **expected).fingerprint
    assert (tokenizer.fingerprint == WordTokenizer.train(corpus, 70).fingerprint) == (not expected)


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_keys_of_sentencepiece(corpus, algorithm):
    sentencepiece = pytest.importorskip("tinytale_mlx.tokenizers.sentencepiece")
    recipe = TokenizerRecipe(
        kind="sentencepiece", vocab_size=400, algorithm=algorithm, normalize="NFKC", lowercase=True, reserved=3
    )
    expected = sentencepiece.SentencePieceTokenizer.train(
        corpus, 400, algorithm=algorithm, normalize="NFKC", lowercase=True, special_tokens=SpecialTokens.standard(3)
    )
    assert make_tokenizer(recipe, corpus).fingerprint == expected.fingerprint


def test_workers_and_progress(corpus, monkeypatch):
    seen, original = [], bpe.count_words

    def count_words(source, rules, specials, progress, workers):
        seen.append(workers)
        return original(source, rules, specials, progress, 1)

    for module in (bpe, simple):
        monkeypatch.setattr(module, "count_words", count_words)
    stages: list[str] = []
    for kind in ("bpe", "word", "char"):
        recipe = TokenizerRecipe(kind=kind, vocab_size=400)
        stages.append("")
        make_tokenizer(recipe, corpus, workers=3, progress=lambda stage, *_: stages.append(stage))
    assert seen == [3, 3]
    assert stages == ["", "reading", "merging", "", "reading", "", "reading"]


def test_a_short_text_is_a_warning():
    with pytest.warns(UserWarning, match="the vocabulary has 264 tokens, not 4096"):
        make_tokenizer(TokenizerRecipe(), ["a b c"])
    with pytest.raises(UserError, match="a vocabulary of 100 is too small"):
        make_tokenizer(TokenizerRecipe(vocab_size=100), ["a b c"])


def unread():
    raise AssertionError("a loaded tokenizer needs no text")
    yield


def test_a_saved_tokenizer_is_loaded(make, tmp_path, monkeypatch):
    saved = make(**BPE)
    saved.save(tmp_path / "saved")
    found = make_tokenizer(TokenizerRecipe(kind="directory", path=str(tmp_path / "saved")), unread())
    assert found.fingerprint == saved.fingerprint
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = TokenizerRecipe(kind="directory", path="~/saved", special_tokens=["<|eos|>", "<|tool|>"])
    more = make_tokenizer(recipe, unread())
    assert (more.special_ids["<|tool|>"], more.vocab_size, more.eos_id) == (400, 401, 3)
    with pytest.raises(UserError, match=r"no tokenizer in .*nowhere"):
        make_tokenizer(TokenizerRecipe(kind="directory", path=str(tmp_path / "nowhere")), ())


def test_gpt2s_files(shared: Path, tmp_path: Path):
    folder = shared / "gpt2"
    gpt2 = make_tokenizer(TokenizerRecipe(kind="gpt2", path=str(folder)), unread())
    assert isinstance(gpt2, ByteBPE)
    assert gpt2.encode("Hello world<|endoftext|>") == [15496, 995, 50256]
    more = make_tokenizer(TokenizerRecipe(kind="gpt2", path=str(folder), special_tokens=["<|pad|>"]), ())
    assert (more.eos_id, more.pad_id) == (50256, 50257)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(folder / name, tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == gpt2.fingerprint
    gpt2.save(tmp_path)  # now a tokenizer.json is there as well, and counts
    assert load_tokenizer(tmp_path).fingerprint == gpt2.fingerprint


def test_two_files_that_are_not_gpt2s(tmp_path: Path):
    (tmp_path / "vocab.json").write_text('{"<s>": 0}')
    with pytest.raises(UserError, match=r"no tokenizer in .*holds no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UserError, match=r"vocab\.json is not GPT-2's: it holds no <\|endoftext\|> token"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*vocab\.json"):
        make_tokenizer(TokenizerRecipe(kind="gpt2", path=str(tmp_path / "nowhere")), ())
