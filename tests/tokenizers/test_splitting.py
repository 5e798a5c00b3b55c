"""The split patterns against `regex` and Rust's `tokenizers`; cutting long text; finding special tokens."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tricky import TRICKY

from tinytale_mlx.tokenizers.splitting import STANDARD_PATTERNS, TextRules, regroup, split_words
from tinytale_mlx.tokenizers.trie import SpecialSplitter, Trie

tokenizers = pytest.importorskip("tokenizers")


def known(character: str) -> bool:
    """Whether this Python's Unicode tables know the character; newer tables may split it differently."""
    return unicodedata.category(character) not in ("Cn", "Cs", "Co")


# Characters at which `re` and Unicode disagree, and ordinary ones, often next to each other.
piece = st.one_of(
    st.sampled_from([*"a1 _'³½Ⅷ\n\r\t\x1c\x85\xa0é一😀²٣", "'s", "'LL", "  ", "\r\n", "ſ", "İ"]),
    st.characters(exclude_categories=("Cs", "Cn", "Co")).filter(known),
)
mixed_text = st.lists(piece, max_size=30).map("".join)


def rust_split(text: str, pattern: str) -> list[str]:
    splitter = tokenizers.pre_tokenizers.Split(tokenizers.Regex(STANDARD_PATTERNS[pattern]), "isolated")
    return [word for word, _ in splitter.pre_tokenize_str(text)]


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
@settings(max_examples=400, deadline=None)
@given(text=mixed_text)
def test_words_are_those_of_other_engines(pattern, text):
    words = split_words(text, pattern)
    assert "".join(words) == text
    assert words == rust_split(text, pattern)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_every_character_is_in_its_unicode_class(pattern):
    regex = pytest.importorskip("regex")
    reference = regex.compile(STANDARD_PATTERNS[pattern])
    characters = [c for c in map(chr, range(0x110000)) if known(c)]
    # After a letter, a number and a sign, in one text that sends every character to the exact classes.
    text = "".join(f"a{c} 1{c}!{c}\n" for c in characters[:20000]) + "½".join(characters)
    assert split_words(text, pattern) == reference.findall(text)


@pytest.mark.parametrize("text", TRICKY)
def test_gpt2_words_are_those_of_the_built_in_splitter(text):
    built_in = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    spans = [span for _, span in built_in.pre_tokenize_str(text)]
    assert split_words(text, "gpt2") == [text[start:end] for start, end in spans]


@settings(max_examples=200, deadline=None)
@given(text=mixed_text)
def test_normalization_is_that_of_tokenizers(text):
    normalizers = tokenizers.normalizers
    lower = normalizers.Lowercase().normalize_str(text)
    assert TextRules(lowercase=True).normalized(text) == lower
    both = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]).normalize_str(text)
    assert TextRules(normalize="NFKC", lowercase=True).normalized(text) == both


@pytest.mark.parametrize("rules", [TextRules(), TextRules("gpt4"), TextRules("gpt2", "NFKC", True)])
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(mixed_text, max_size=8), size=st.integers(1, 12))
def test_regrouped_text_has_the_same_words(rules, texts, size):
    pieces = list(regroup(texts, size=size))
    assert "".join(pieces) == "".join(texts)
    assert [word for piece in pieces for word in rules.words(piece)] == rules.words("".join(texts))


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["<a b>", "<a", " b>", "<", " ", "x", "x b>", "<a b> c>"]), max_size=20),
    size=st.integers(1, 6),
)
def test_regrouping_does_not_cut_special_tokens(texts, size):
    specials = ["<a b>", "<a b> c>", "x b"]
    splitter = SpecialSplitter(specials)
    pieces = regroup(texts, specials, size=size)
    found = [piece for text in pieces for piece, special in splitter.split(text) if special]
    assert found == [piece for piece, special in splitter.split("".join(texts)) if special]


def test_long_text_comes_in_small_pieces():
    pieces = list(regroup(["word " * 100] * 100, size=1000))
    assert max(map(len, pieces)) < 1010
    assert [len(piece) for piece in regroup(["x" * 700] * 100, size=1000)] == [70000]


def test_no_character_turns_into_one_that_ends_in_a_space():
    """`regroup` cuts before a space; normalizing the pieces must not bring another space up against it."""
    for form in ("NFC", "NFKC"):
        for character in map(chr, range(0x110000)):
            normal = unicodedata.normalize(form, character)
            assert character.isspace() or not normal[-1].isspace()


def test_the_trie_finds_the_longest_word():
    trie = Trie(["<a>", "<a><b>", "<b>"])
    assert trie.longest("<a><b>") == "<a><b>"
    assert trie.longest("<a><c>") == "<a>"
    assert trie.longest("x<b>", 1) == "<b>"
    assert trie.longest("<c>") is None
    assert trie.longest("") is None


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("ab[]-^", max_size=30),
    tokens=st.lists(st.text("ab[]-^", min_size=1, max_size=4), max_size=5, unique=True),
)
def test_special_tokens_are_found_leftmost_longest(text, tokens):
    import re

    pieces = list(SpecialSplitter(tokens).split(text))
    assert "".join(piece for piece, _ in pieces) == text
    longest_first = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
    assert [p for p, special in pieces if special] == (re.findall(longest_first, text) if tokens else [])
    assert all(piece for piece, _ in pieces)
