"""Character and word tokenizers."""

import pytest

from tinytale_mlx.tokenizers import CharTokenizer, WordTokenizer, load_tokenizer


def test_shakespeare_has_65_characters(shared, tmp_path):
    path = shared / "shakespeare" / "input.txt"
    tokenizer = CharTokenizer.train(path, special_tokens=[])
    assert tokenizer.vocab_size == 65
    assert tokenizer.pad_id is None
    text = path.read_text(encoding="utf-8")
    ids = tokenizer.encode(text)
    assert max(ids) == 64
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("\n !") == [0, 1, 2]
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).vocab_size == 65


def test_unknown_characters():
    strict = CharTokenizer.train("abc", special_tokens=[])
    with pytest.raises(ValueError, match="'é' is not in the vocabulary, and there is no unk token"):
        strict.encode("aé")
    lenient = CharTokenizer.train("abc")
    assert lenient.encode("aé") == [8, 1]
    assert lenient.decode([8, 1, 9]) == "ab"
    assert lenient.decode([8, 1, 9], skip_special=False) == "a<|unk|>b"


def test_special_tokens_in_the_text_are_no_characters():
    tokenizer = CharTokenizer.train("ab<|eos|>ba", special_tokens=["<|eos|>"])
    assert tokenizer.vocab == {0: "<|eos|>", 1: "a", 2: "b"}
    assert tokenizer.encode("ab<|eos|>") == [1, 2, 0]
    with pytest.raises(ValueError, match="'<' is not in the vocabulary"):
        tokenizer.encode("<|eos|>", special=False)


def test_words_are_the_commonest():
    tokenizer = WordTokenizer.train("The cat. the cat! THE dog", 11)
    assert [tokenizer.vocab[i] for i in range(8, 11)] == [" cat", " the", " dog"]
    assert tokenizer.decode(tokenizer.encode("A CAT the!")) == " cat the"
    assert tokenizer.encode("dog") == [tokenizer.unk_id]
    cased = WordTokenizer.train("The cat", 20, lowercase=False, special_tokens=["<unk>"])
    assert cased.decode(cased.encode("The cat")) == "The cat"
    assert cased.unk_id == 0


def test_rare_words_are_left_out():
    tokenizer = WordTokenizer.train("a b a b c", 100, special_tokens=["<unk>"], min_frequency=2)
    assert tokenizer.vocab == {0: "<unk>", 1: " b"}


def test_no_room_for_words():
    with pytest.raises(ValueError, match="a vocabulary of 8 has no room"):
        WordTokenizer.train("a b c", 8)


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_ids_out_of_range_and_bad_vocabularies(kind):
    tokenizer = kind({0: "a", 1: "b"})
    with pytest.raises(ValueError, match="token id 2 is not in the vocabulary; ids run from 0 to 1"):
        tokenizer.decode([0, 2])
    with pytest.raises(ValueError, match="the same: 'a'"):
        kind({0: "a", 1: "a"})
    with pytest.raises(ValueError, match="must be 0 to 1"):
        kind({0: "a", 2: "b"})
    with pytest.raises(ValueError, match="lacks the special token '<x>'"):
        kind({0: "a"}, ["<x>"])


def test_lone_surrogates_are_refused():
    with pytest.raises(ValueError, match=r"lone surrogate U\+D83D"):
        CharTokenizer.train("\ud83d")
    with pytest.raises(ValueError, match=r"lone surrogate U\+D83D"):
        WordTokenizer.train("\ud83d", 100)


@pytest.mark.parametrize("kind", ["char", "word"])
def test_streams_equal_the_joined_text(kind, corpus):
    text = "".join(corpus)
    tokenizer = CharTokenizer.train(text) if kind == "char" else WordTokenizer.train(text, 100)
    chunks = [text[i : i + 777] for i in range(0, len(text), 777)] * 30
    assert list(tokenizer.encode_iterable(chunks)) == tokenizer.encode("".join(chunks))
