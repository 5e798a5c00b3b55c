"""The trainer against one that recounts everything after each merge, and its limits."""

import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytale_mlx.tokenizers import ByteBPE, SpecialTokens
from tinytale_mlx.tokenizers.bpe_training import MergeLimits, learn_merges


def naive_merges(counts: Counter[str], limits: MergeLimits) -> list[tuple[bytes, bytes]]:
    """Recount all pairs, merge the best one everywhere, again: the definition, with no thought for speed."""
    words = [([bytes([byte]) for byte in word.encode()], count) for word, count in counts.items()]
    merges, made = [], set()
    while len(made) < limits.new_tokens:
        totals: Counter[tuple[bytes, bytes]] = Counter()
        for tokens, count in words:
            for pair in pairwise(tokens):
                totals[pair] += count
        longest = limits.max_token_length or 1 << 30
        allowed = [p for p, n in totals.items() if n >= limits.min_frequency and len(p[0] + p[1]) <= longest]
        if not allowed:
            break
        best = max(allowed, key=lambda pair: (totals[pair], pair))
        merges.append(best)
        made.add(best[0] + best[1])
        for tokens, _ in words:
            i = 0
            while i < len(tokens) - 1:
                if (tokens[i], tokens[i + 1]) == best:
                    tokens[i : i + 2] = [best[0] + best[1]]
                i += 1
    return merges


word_counts = st.dictionaries(
    st.text(st.sampled_from("abc é"), min_size=1, max_size=12), st.integers(1, 9), min_size=1, max_size=12
)


@settings(max_examples=300, deadline=None)
@given(word_counts, st.integers(0, 40), st.integers(1, 4), st.sampled_from([None, 2, 3, 5]))
def test_merges_equal_a_full_recount(words, new_tokens, min_frequency, max_token_length):
    counts, limits = Counter(words), MergeLimits(new_tokens, min_frequency, max_token_length)
    merges = learn_merges(counts, limits)
    assert merges == naive_merges(counts, limits)
    assert len({first + second for first, second in merges}) == len(merges)


def test_ties_go_to_the_greater_pair_of_byte_strings():
    assert learn_merges(Counter(["ab", "cd", "ca"]), MergeLimits(1)) == [(b"c", b"d")]
    # "aa" occurs twice in "aaa"; a longer string is greater than its own beginning.
    assert learn_merges(Counter(["aaa"]), MergeLimits(2)) == [(b"a", b"a"), (b"aa", b"a")]


@pytest.mark.parametrize("vocab_size", [264, 265, 300, 421])
def test_the_vocabulary_has_exactly_the_size_asked_for(corpus, vocab_size):
    tokenizer = ByteBPE.train(corpus, vocab_size)
    assert tokenizer.vocab_size == len(tokenizer.vocab) == vocab_size
    ids = [i for text in corpus for i in tokenizer.encode(text)]
    assert max(ids) < vocab_size
    assert [tokenizer.special_ids[f"<|{name}|>"] for name in ("pad", "unk", "bos", "eos")] == [0, 1, 2, 3]
    assert tokenizer.special_ids["<|im_end|>"] == 5
    assert tokenizer.special_ids["<|reserved_1|>"] == 7
    assert tokenizer.vocab[8] == b"\x00"


def test_a_short_text_gives_a_smaller_vocabulary_and_says_so():
    with pytest.warns(UserWarning, match="the vocabulary has 265 tokens, not 1000"):
        tokenizer = ByteBPE.train("abab", 1000)
    assert tokenizer.vocab_size == 265
    with pytest.warns(UserWarning, match="the vocabulary has 264 tokens"):
        assert ByteBPE.train([], 1000).encode("é") == [8 + 0xC3, 8 + 0xA9]


def test_limits_are_kept(corpus):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short = ByteBPE.train(corpus, 2000, max_token_length=3)
        common = ByteBPE.train(corpus, 2000, min_frequency=50)
    plain = [name for i, name in short.vocab.items() if i not in short.special_ids.values()]
    assert max(map(len, plain)) == 3
    assert common.vocab_size < short.vocab_size


def test_special_tokens_in_the_text_are_never_merged():
    text = "<|end|>story one<|end|>story two<|end|>" * 20
    tokenizer = ByteBPE.train(text, 264, special_tokens=["<|end|>"])
    assert not any(b"|" in name for i, name in tokenizer.vocab.items() if i > 256)
    assert tokenizer.encode("<|end|>")[0] == 0


def test_files_and_texts_train_the_same(tmp_path: Path, corpus):
    path = tmp_path / "corpus.txt"
    text = "".join(corpus) * 40  # more than one chunk of the reader
    path.write_bytes(text.encode())
    from_file, from_text = ByteBPE.train(path, 500), ByteBPE.train(text, 500)
    assert from_file.fingerprint == from_text.fingerprint
    assert ByteBPE.train([path], 500).merges == from_text.merges


def test_progress_is_reported(corpus):
    seen = []
    ByteBPE.train(corpus * 300, 500, progress=lambda stage, done, total: seen.append((stage, done, total)))
    assert ("merging", 200, 236) in seen
    assert any(stage == "reading" and done > 1 << 20 for stage, done, _ in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 263}, "needs at least 264"),
        ({"special_tokens": ["<a>", "<b>", "<a>"]}, "'<a>' is listed twice"),
        ({"special_tokens": ["<a>", ""]}, "empty string"),
        ({"special_tokens": ["a"]}, "two tokens of the vocabulary are the same"),
        ({"pattern": "gpt5"}, "unknown split pattern 'gpt5'"),
        ({"normalize": "nfc"}, "unknown normal form 'nfc'"),
        ({"min_frequency": 0}, "min_frequency must be at least 1"),
        ({"max_token_length": 0}, "max_token_length must be at least 1"),
    ],
)
def test_impossible_wishes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ByteBPE.train("some text", **{"vocab_size": 300, **options})


def test_bad_files_and_surrogates_are_refused(tmp_path: Path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8"):
        ByteBPE.train(tmp_path / "latin.txt", 300)
    with pytest.raises(ValueError, match=r"cannot read .*none\.txt"):
        ByteBPE.train(tmp_path / "none.txt", 300)
    with pytest.raises(ValueError, match=r"lone surrogate U\+D83D"):
        ByteBPE.train("half a smile \ud83d", 300)


def test_special_tokens_find_their_roles():
    standard = SpecialTokens.standard(reserved=0)
    assert standard.names == ("<|pad|>", "<|unk|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")
    gpt2 = SpecialTokens.of(["<|endoftext|>"])
    assert (gpt2.bos, gpt2.eos, gpt2.pad) == ("<|endoftext|>", "<|endoftext|>", None)
    own = SpecialTokens(("[STOP]", "[FILL]"), pad="[FILL]", eos="[STOP]")
    tokenizer = ByteBPE.train("text", 258, special_tokens=own)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.unk_id) == (1, 0, None, None)
    with pytest.raises(ValueError, match="the eos token '<x>' is not among"):
        SpecialTokens(("<y>",), eos="<x>")
