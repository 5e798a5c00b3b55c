"""Longest match: against the definition, against Rust's WordPiece, and where it differs from BPE."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tricky import TRICKY

from tinytale_mlx.errors import UserError
from tinytale_mlx.tokenizers import ByteBPE, LongestMatchTokenizer, SpecialTokens
from tinytale_mlx.tokenizers.splitting import TextRules

any_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
BYTES = dict(enumerate(bytes([byte]) for byte in range(256)))


@pytest.fixture(scope="module")
def longest(bpe: ByteBPE) -> LongestMatchTokenizer:
    return LongestMatchTokenizer.from_bpe(bpe)


def by_definition(tokenizer: LongestMatchTokenizer, text: str) -> list[bytes]:
    """Of all tokens the longest that the rest of the word begins with, again and again."""
    plain = {name for i, name in tokenizer.vocab.items() if i not in tokenizer.special_ids.values()}
    found = []
    for word in tokenizer.rules.words(text):
        rest = word.encode()
        while rest:
            found.append(max((name for name in plain if rest.startswith(name)), key=len))
            rest = rest[len(found[-1]) :]
    return found


@pytest.mark.parametrize("text", TRICKY)
def test_tokens_are_the_longest(longest, text):
    ids = longest.encode(text, special=False)
    assert [longest.vocab[i] for i in ids] == by_definition(longest, text)


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_text_survives(longest, text):
    assert longest.decode(longest.encode(text, special=False)) == text
    assert longest.decode(longest.encode(text), skip_special=False) == text


def test_it_is_not_bpe():
    merges = [(b"b", b"c"), (b"a", b"b")]
    bpe = ByteBPE({**BYTES, 256: b"bc", 257: b"ab"}, merges)
    longest = LongestMatchTokenizer.from_bpe(bpe)
    assert [bpe.vocab[i] for i in bpe.encode("abc")] == [b"a", b"bc"]
    assert [longest.vocab[i] for i in longest.encode("abc")] == [b"ab", b"c"]
    assert longest.vocab == bpe.vocab
    assert longest.fingerprint != bpe.fingerprint


def test_a_megabyte_without_a_space(longest):
    text = "".join(random.Random(0).choices("theca", k=1 << 20))
    assert longest.decode(longest.encode(text)) == text


def test_bad_input(longest):
    with pytest.raises(UserError, match="token id 600 is not in the vocabulary; ids run from 0 to 599"):
        longest.decode([600])
    with pytest.raises(UserError, match=r"lone surrogate U\+D83D"):
        longest.encode("\ud83d")
    with pytest.raises(UserError, match="no token for 255 bytes"):
        LongestMatchTokenizer({0: b"a"})


def test_rules_specials_and_roles_come_along(corpus):
    bpe = ByteBPE.train(corpus, 400, special_tokens=["[END]", "<unk>"], pattern="gpt4", lowercase=True)
    longest = LongestMatchTokenizer.from_bpe(bpe)
    assert (longest.rules, longest.specials) == (bpe.rules, bpe.specials)
    assert longest.encode("CAT[END]") == [*longest.encode("cat"), 0]
    assert longest.unk_id == 1


@pytest.mark.parametrize("name", ["wizard", "|>", "12", "'s", "...", "é"])
def test_special_tokens_that_a_word_could_hold_are_refused(name):
    with pytest.raises(UserError, match="could be part of a word"):
        LongestMatchTokenizer(BYTES, [name])


@pytest.mark.parametrize("name", ["<|wizard|>", "[END]", " wizard", "日本", "two words", "<unk>"])
def test_other_special_tokens_are_not(name):
    assert LongestMatchTokenizer(BYTES, [name]).encode(f"x{name}y") == [ord("x"), 256, ord("y")]


names = st.lists(st.text("a<|> é1", min_size=1, max_size=5), max_size=3, unique=True)


@settings(max_examples=300, deadline=None)
@given(st.data(), names, st.sampled_from(["gpt2", "gpt4"]), st.booleans())
def test_wordpiece_agrees_on_special_tokens_that_are_plain_text(data, specials, pattern, lowercase):
    """It files them among the words of its vocabulary, and must not find them there."""
    library = pytest.importorskip("tokenizers")
    pieces = data.draw(st.lists(st.text("Aa<|> é1", min_size=2, max_size=4).map(str.encode), unique=True, max_size=9))
    vocab = dict(enumerate([*BYTES.values(), *pieces]))
    rules = TextRules(pattern, None, lowercase)
    try:
        ours = LongestMatchTokenizer(vocab, SpecialTokens(tuple(specials)), rules)
        theirs = library.Tokenizer.from_str(json.dumps(ours._to_json()))
    except UserError:
        return
    theirs.encode_special_tokens = True
    text = "".join(data.draw(st.lists(st.sampled_from([*specials, "a", "A1", " ", "<|", "é>"]), max_size=12)))
    assert theirs.encode(text).ids == ours.encode(text, special=False)
    theirs.encode_special_tokens = False
    assert theirs.encode(text).ids == ours.encode(text)
