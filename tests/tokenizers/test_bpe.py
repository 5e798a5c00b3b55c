"""Encoding and decoding with ByteBPE."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tricky import TRICKY

from tinytale_mlx.tokenizers import ByteBPE, LongestMatchTokenizer, StreamDecoder

any_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


def slow_merge(tokenizer: ByteBPE, word: str) -> list[bytes]:
    """BPE by the book: of the pairs that stand side by side, merge the one learned first, leftmost first."""
    rank = {pair: i for i, pair in reversed(list(enumerate(tokenizer.merges)))}
    parts = [bytes([byte]) for byte in word.encode()]
    while len(parts) > 1:
        best, place = min((rank.get(pair, 1 << 30), i) for i, pair in enumerate(pairwise(parts)))
        if best == 1 << 30:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


@settings(max_examples=300, deadline=None)
@given(text=any_text)
def test_text_survives(bpe: ByteBPE, text):
    assert bpe.decode(bpe.encode(text, special=False)) == text
    assert bpe.decode(bpe.encode(text), skip_special=False) == text


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60))
def test_every_byte_string_survives(bpe: ByteBPE, data):
    ids = [8 + byte for byte in data]
    assert bpe.decode_bytes(ids) == data
    assert bpe.decode(ids) == data.decode("utf-8", errors="replace")


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_text_survives(bpe: ByteBPE, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids, skip_special=False) == text
    assert all(0 <= i < bpe.vocab_size for i in ids)


@pytest.mark.parametrize("length", [199, 201, 300, 2000])
def test_long_words_merge_by_the_book(bpe: ByteBPE, length):
    dice = random.Random(length)
    for letters in ("a", "ab", "theca", "onceuptimls日"):
        word = "".join(dice.choices(letters, k=length))
        assert [bpe.vocab[i] for i in bpe.encode(word)] == slow_merge(bpe, word)


@settings(max_examples=200, deadline=None)
@given(text=st.text("theca d'", max_size=40))
def test_short_words_merge_by_the_book(bpe: ByteBPE, text):
    expected = [part for word in bpe.rules.words(text) for part in slow_merge(bpe, word)]
    assert [bpe.vocab[i] for i in bpe.encode(text)] == expected


@st.composite
def vocabularies(draw) -> ByteBPE:
    """Merges of any order: some make a token before its parts, or make one a second time in another way."""
    vocab, merges = {i: bytes([i]) for i in range(256)}, []
    parts = [b"a", b"b", b"c"]
    for _ in range(draw(st.integers(0, 12))):
        merge = draw(st.sampled_from(parts)), draw(st.sampled_from(parts))
        made = merge[0] + merge[1]
        if merge not in merges and len(made) <= 12:
            merges.append(merge)
            if made not in parts:
                parts.append(made)
                vocab[len(vocab)] = made
    return ByteBPE(vocab, draw(st.permutations(merges)))


@settings(max_examples=500, deadline=None)
@given(tokenizer=vocabularies(), word=st.text("abc", max_size=60), block=st.integers(1, 9))
def test_blocks_are_joined_as_if_they_had_been_one(tokenizer, word, block):
    tokenizer._block = block
    assert [tokenizer.vocab[i] for i in tokenizer.encode(word)] == slow_merge(tokenizer, word)


@settings(max_examples=200, deadline=None)
@given(tokenizer=vocabularies(), word=st.text("abc", max_size=60))
def test_the_heap_merges_by_the_book(tokenizer, word):
    ids = tokenizer._merge_long(list(word.encode()))
    assert [tokenizer.vocab[i] for i in ids] == slow_merge(tokenizer, word)


def test_runs_merge_by_the_book():
    """Where the blocks end must not show, also with tokens as long as blocks."""
    tokenizer = ByteBPE.train(["x" + "a" * 300, "ab" * 200, "aab" * 150], 278, special_tokens=[])
    assert max(map(len, tokenizer.vocab.values())) > 64
    for word in ("a" * 1000, "x" + "a" * 999, "ab" * 500, "b" + "ab" * 500, "aab" * 333, "b" + "a" * 500 + "ba" * 250):
        assert [tokenizer.vocab[i] for i in tokenizer.encode(word)] == slow_merge(tokenizer, word)


@pytest.mark.slow
def test_megabytes_without_a_space(bpe: ByteBPE):
    text = "".join(random.Random(0).choices("theca日", k=2_000_000))
    for tokenizer in (bpe, LongestMatchTokenizer.from_bpe(bpe)):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_megabyte_without_a_space(bpe: ByteBPE):
    text = "".join(random.Random(0).choices("theca", k=1 << 20))
    assert bpe.decode(bpe.encode(text)) == text
    ids = bpe.encode(" " * (1 << 20))
    assert bpe.decode(ids) == " " * (1 << 20)
    tokenizer = ByteBPE.train(text, 300)
    assert tokenizer.vocab_size == 300


def test_the_word_cache_is_bounded(bpe: ByteBPE):
    text = " ".join(str(number) for number in range(100_000, 140_000))
    assert bpe.decode(bpe.encode(text)) == text
    assert 1000 < len(bpe._words) <= bpe.cache_size == 1 << 15


@pytest.mark.parametrize("size", [0, 1, 5])
def test_the_word_cache_has_the_size_asked_for(bpe: ByteBPE, size):
    text = "the cat sat on the mat, the dog on the cat"
    small = ByteBPE(bpe.vocab, bpe.merges, bpe.specials, bpe.rules, cache_size=size)
    assert small.encode(text) == bpe.encode(text)
    assert small.cache_size == size
    assert (len(small._words) > 0) == (size > 0)
    assert len(small._words) <= size
    small.cache_size = 100
    assert small.encode(text) == bpe.encode(text)
    assert len(small._words) == len(set(bpe.rules.words(text)))
    with pytest.raises(ValueError, match="cache_size must not be negative, and it is -1"):
        small.cache_size = -1


def test_nul_bytes_are_bytes_like_others(bpe: ByteBPE):
    text = "\0the\0\0 cat\0"
    assert bpe.decode(bpe.encode(text)) == text
    assert ByteBPE.train(text * 9, 270).decode_bytes([8, 8]) == b"\0\0"


def test_special_tokens_are_one_id_or_plain_text(bpe: ByteBPE):
    assert bpe.encode("<|eos|>") == [bpe.eos_id] == [3]
    plain = bpe.encode("<|eos|>", special=False)
    assert len(plain) > 1
    assert bpe.decode(plain) == "<|eos|>"
    assert bpe.decode([2, *bpe.encode("hi"), 3]) == "hi"
    assert bpe.decode([2, *bpe.encode("hi"), 3], skip_special=False) == "<|bos|>hi<|eos|>"
    assert bpe.encode_batch(["a<|eos|>", "b"], special=False) == [
        bpe.encode("a<|eos|>", special=False), bpe.encode("b")
    ]  # fmt: skip


def test_special_tokens_that_contain_each_other():
    names = ["<|end|>", "<|end|><|end|>", "end", "|><|"]
    tokenizer = ByteBPE.train("some end of text", 260, special_tokens=names, min_frequency=1)
    assert tokenizer.encode("<|end|><|end|><|end|>") == [1, 0]
    assert tokenizer.encode("end|><|end|>") == [2, 3, 2, *tokenizer.encode("|>", special=False)]
    assert tokenizer.decode([1, 0, 2, 3], skip_special=False) == "<|end|><|end|><|end|>end|><|"


def test_streams_equal_the_joined_text(bpe: ByteBPE):
    text = "".join(TRICKY) * 200
    dice, chunks, start = random.Random(1), [], 0
    while start < len(text):
        chunks.append(text[start : start + dice.randint(1, 3000)])
        start += len(chunks[-1])
    assert list(bpe.encode_iterable(chunks)) == bpe.encode(text)
    assert list(bpe.encode_iterable(chunks, special=False)) == bpe.encode(text, special=False)
    assert list(bpe.encode_iterable([])) == []


def test_encode_iterable_is_lazy(bpe: ByteBPE):
    def endless():
        while True:
            yield "the cat sat on the mat. "

    ids = bpe.encode_iterable(endless())
    assert [next(ids) for _ in range(5)] == bpe.encode("the cat sat on the mat. the")[:5]


def test_token_bytes_add_up(bpe: ByteBPE):
    text = "naïve café 😀<|eos|> the end"
    assert sum(len(bpe.token_bytes(i)) for i in bpe.encode(text)) == len(text.encode()) - len("<|eos|>")
    assert bpe.token_bytes(3) == b""
    assert bpe.vocab[3] == b"<|eos|>"


@pytest.mark.parametrize("bad", [-1, 600, 10**9])
def test_ids_out_of_range(bpe: ByteBPE, bad):
    message = f"token id {bad} is not in the vocabulary; ids run from 0 to 599"
    with pytest.raises(ValueError, match=message):
        bpe.decode([8, bad])
    with pytest.raises(ValueError, match=message):
        bpe.token_bytes(bad)


def test_lone_surrogates_are_refused(bpe: ByteBPE):
    with pytest.raises(ValueError, match=r"lone surrogate U\+D83D"):
        bpe.encode("half a smile \ud83d")


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_streaming_never_shows_half_a_character(bpe: ByteBPE, text):
    stream, shown = StreamDecoder(bpe), []
    for token_id in bpe.encode(text, special=False):
        shown.append(stream.add(token_id))
        assert "\ufffd" not in shown[-1] or "\ufffd" in text
    assert "".join(shown) + stream.flush() == text


def test_streaming_broken_bytes(bpe: ByteBPE):
    stream = StreamDecoder(bpe)
    ids = [8 + byte for byte in "😀".encode()[:3]]
    assert [stream.add(i) for i in ids] == ["", "", ""]
    assert stream.flush() == "\ufffd"
    assert stream.add(bpe.encode("x")[0]) == "x"


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=30))
def test_streaming_any_bytes_equals_decoding(bpe: ByteBPE, data):
    stream = StreamDecoder(bpe)
    ids = [8 + byte for byte in data]
    assert "".join(map(stream.add, ids)) + stream.flush() == bpe.decode(ids)


def test_normalization_when_training_is_that_when_encoding():
    tokenizer = ByteBPE.train("ﬁne CAFÉ " * 9, 273, normalize="NFKC", lowercase=True, min_frequency=1)
    assert tokenizer.encode("ﬁne CAFE\u0301") == tokenizer.encode("fine café")
    assert tokenizer.decode(tokenizer.encode("ﬁne CAFÉ")) == "fine café"
    assert any(name == " café".encode() for name in tokenizer.vocab.values())


def test_ids_may_be_numpy_integers(bpe: ByteBPE):
    numpy = pytest.importorskip("numpy")
    assert bpe.decode(numpy.array(bpe.encode("the cat"), numpy.uint16)) == "the cat"


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ({0: b"a"}, [], "no token for 255 bytes"),
        ({i: bytes([i]) for i in range(256)} | {300: b"ab"}, [], "must be 0 to 256"),
        ({i: bytes([i]) for i in range(256)} | {256: b"a"}, [], "the same: b'a'"),
        ({i: bytes([i]) for i in range(256)}, [(b"a", b"b")], "needs the token b'ab'"),
        ({i: bytes([i]) for i in range(256)} | {256: b"abc"}, [(b"ab", b"c")], "needs the token b'ab'"),
    ],
)
def test_impossible_vocabularies_are_refused(vocab, merges, message):
    with pytest.raises(ValueError, match=message):
        ByteBPE(vocab, merges)
