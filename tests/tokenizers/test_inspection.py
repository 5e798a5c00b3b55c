"""What a tokenizer makes of text: counted by hand, and shown without anything invisible."""

import pytest

from tinytale_mlx.tokenizers import ByteBPE, CharTokenizer, WordTokenizer
from tinytale_mlx.tokenizers.inspection import longest_tokens, piece, pieces, statistics, visible


@pytest.fixture(scope="module")
def bytes_only() -> ByteBPE:
    """Ids 0 to 7 are special, then come the 256 bytes, then "bc" and "abc"."""
    return ByteBPE.train(["abc abc abc"], 8 + 256 + 2)


def test_pieces(bytes_only: ByteBPE) -> None:
    found = pieces(bytes_only, "abc é<|eos|>\n")
    assert [one.text for one in found] == ["abc", " ", "\\xc3", "\\xa9", "<|eos|>", "\n"]
    assert [one.shown for one in found] == ["abc", "·", "\\xc3", "\\xa9", "<|eos|>", "↵"]
    assert [one.special for one in found] == [False, False, False, False, True, False]
    assert [one.id for one in found] == bytes_only.encode("abc é<|eos|>\n")


def test_pieces_of_text_by_strangers(bytes_only: ByteBPE) -> None:
    found = pieces(bytes_only, "<|eos|>", special=False)
    assert not any(one.special for one in found)
    assert "".join(one.text for one in found) == "<|eos|>"


def test_pieces_of_nothing(bytes_only: ByteBPE) -> None:
    assert pieces(bytes_only, "") == []


def test_piece(bytes_only: ByteBPE) -> None:
    assert piece(bytes_only, 3).text == "<|eos|>"
    assert piece(bytes_only, 8 + ord("x")).text == "x"
    with pytest.raises(ValueError, match="token id 266 is not in the vocabulary"):
        piece(bytes_only, 266)


def test_pieces_say_what_is_unknown() -> None:
    words = WordTokenizer.train(["cat cat"], 20)
    assert [(one.text, one.special) for one in pieces(words, "cat dog")] == [("cat", False), ("<|unk|>", True)]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a b\n\tc", "a·b↵→c"),
        ("\x1b[2J\0\x7f", "\\u001b[2J\\u0000\\u007f"),
        ("\u00a0\u200b\u202e\u2028\ufeff", "\\u00a0\\u200b\\u202e\\u2028\\ufeff"),
        ("naïve 日本 😀", "naïve·日本·😀"),
    ],
)
def test_visible(text: str, seen: str) -> None:
    assert visible(text) == seen


def test_statistics(bytes_only: ByteBPE) -> None:
    """By hand: abc + space + abc, and x + the two bytes of é."""
    found = statistics(bytes_only, ["abc abc", "xé"])
    assert found == {
        "tokens": 6,
        "bytes": 10,
        "characters": 9,
        "bytes_per_token": pytest.approx(10 / 6),
        "used": 5,
        "used_share": pytest.approx(5 / 258),
        "unknown": 0,
        "unknown_share": 0.0,
    }


def test_statistics_and_special_tokens(bytes_only: ByteBPE) -> None:
    """In training they are plain text, and so they are here unless they are asked for."""
    assert statistics(bytes_only, ["<|eos|>"])["tokens"] == 7
    found = statistics(bytes_only, ["<|eos|>"], special=True)
    assert (found["tokens"], found["used"]) == (1, 0)


def test_statistics_count_what_is_unknown() -> None:
    words = WordTokenizer.train(["cat cat"], 20)
    found = statistics(words, ["cat dog", "cat bird"])
    assert (found["tokens"], found["unknown"]) == (4, 2)
    assert found["unknown_share"] == 0.5
    assert found["used_share"] == 0.5  # "cat", but never " cat"


def test_statistics_of_nothing(bytes_only: ByteBPE) -> None:
    found = statistics(bytes_only, [])
    assert (found["tokens"], found["bytes"]) == (0, 0)
    assert found["bytes_per_token"] is found["unknown_share"] is None


def test_statistics_without_unk() -> None:
    letters = CharTokenizer.train(["abc"], special_tokens=())
    assert statistics(letters, ["cab"])["unknown"] == 0
    with pytest.raises(ValueError, match="'x' is not in the vocabulary"):
        statistics(letters, ["x"])


def test_longest_tokens(bytes_only: ByteBPE) -> None:
    assert longest_tokens(bytes_only, 3) == ["abc", "bc", "\0"]
    assert longest_tokens(CharTokenizer.train(["aé"], special_tokens=()), 5) == ["é", "a"]
