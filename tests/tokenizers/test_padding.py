"""Batches of texts of several lengths: what is where, what is cut off, what the mask says."""

import numpy as np
import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.tokenizers import CharTokenizer, SpecialTokens, pad_batch

PAD, BOS, EOS = 0, 2, 3
A, B, C, D = 8, 9, 10, 11


@pytest.fixture(scope="module")
def chars() -> CharTokenizer:
    return CharTokenizer.train("abcd")


def test_short_texts_are_filled_up(chars):
    batch = pad_batch(chars, ["ab", "", "abcd"])
    assert batch.ids.tolist() == [
        [BOS, A, B, EOS, PAD, PAD],
        [BOS, EOS, PAD, PAD, PAD, PAD],
        [BOS, A, B, C, D, EOS],
    ]
    assert batch.mask.tolist() == [[True] * 4 + [False] * 2, [True] * 2 + [False] * 4, [True] * 6]
    assert (batch.ids.dtype, batch.mask.dtype) == (np.int32, bool)


def test_on_the_left(chars):
    batch = pad_batch(chars, ["ab", "abcd"], bos=False, eos=False, side="left")
    assert batch.ids.tolist() == [[PAD, PAD, A, B], [A, B, C, D]]
    assert batch.mask.tolist() == [[False, False, True, True], [True] * 4]


@pytest.mark.parametrize(("truncate", "row"), [("right", [BOS, A, B, EOS]), ("left", [BOS, C, D, EOS])])
def test_too_long_texts_lose_an_end_but_no_special_token(chars, truncate, row):
    batch = pad_batch(chars, ["abcd", "d"], max_length=4, truncate=truncate)
    assert batch.ids.tolist() == [row, [BOS, D, EOS, PAD]]
    assert pad_batch(chars, ["abcd"], max_length=6).ids.shape == (1, 6)


def test_special_tokens_in_the_text(chars):
    assert pad_batch(chars, ["a<|eos|>"]).ids.tolist() == [[BOS, A, EOS, EOS]]
    unknown = chars.unk_id
    assert pad_batch(chars, ["<|eos|>"], special=False).ids.tolist() == [[BOS, *[unknown] * 7, EOS]]


def test_eos_pads_where_there_is_no_pad_token():
    chars = CharTokenizer.train("ab", special_tokens=["<|eos|>"])
    batch = pad_batch(chars, ["ab", ""])
    assert batch.ids.tolist() == [[1, 2, 0], [0, 0, 0]]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]


def test_no_texts(chars):
    assert pad_batch(chars, []).ids.shape == pad_batch(chars, []).mask.shape == (0, 0)
    assert pad_batch(chars, [""], bos=False, eos=False).ids.shape == (1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 5}, "text 2 has 4 tokens, and max_length 5 leaves room for 3; truncate its right or left end"),
        ({"max_length": 2, "truncate": "right"}, "max_length must be at least 3, and it is 2: 2 special tokens"),
        ({"max_length": 0, "bos": False, "eos": False}, "max_length must be at least 1, and it is 0"),
        ({"side": "middle"}, "right or left, not 'middle'"),
        ({"truncate": True}, "one of them or None, not True"),
    ],
)
def test_what_cannot_be_done(chars, options, message):
    with pytest.raises(UserError, match=message):
        pad_batch(chars, ["a", "abcd"], **options)


def test_nothing_to_pad_with():
    chars = CharTokenizer.train("ab", special_tokens=SpecialTokens(("<|bos|>",), bos="<|bos|>"))
    with pytest.raises(UserError, match="neither a pad nor an EOS token"):
        pad_batch(chars, ["a", "ab"])
    more = chars.add_tokens(["<|pad|>"])
    assert pad_batch(more, ["a", "ab"]).ids.tolist() == [[0, 1, 3], [0, 1, 2]]
