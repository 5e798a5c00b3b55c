"""Text from tokens: stop texts wherever the borders are, whole characters, log-probabilities on request."""

import itertools
import json
import math

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.generation.text import StopTexts, Writer
from tinytale_mlx.tokenizers import ByteBPE


@pytest.fixture(scope="module")
def tokenizer() -> ByteBPE:
    return ByteBPE.train(["abab"], 264)


def shown(pieces: list[str], *stops: str) -> list[str]:
    """What is shown after each piece, and at the end."""
    cut = StopTexts(stops)
    found = []
    for piece in pieces:
        found.append(cut.add(piece))
        if cut.found:
            return found
    return [*found, cut.flush()]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["ab", "END", "cd"], ["ab", ""]),
        (["abEN", "Dcd"], ["ab", ""]),
        (["a", "bE", "N", "Dx"], ["a", "b", "", ""]),
        (["abEN", "Ncd"], ["ab", "ENNcd", ""]),
        (["abEN"], ["ab", "EN"]),  # half of it at the end of the text: it is text
        (["abE", "EN", "D"], ["ab", "E", ""]),  # what was held back was the wrong beginning
        (["abENDcdEND"], ["ab"]),
        (["END"], [""]),
        (["plain"], ["plain", ""]),
    ],
)
def test_over_the_borders_of_pieces(pieces: list[str], expected: list[str]):
    assert shown(pieces, "END") == expected


def test_of_several_the_one_that_ends_first():
    for pieces in (["xabcdy"], ["xab", "cd"], list("xabcdy")):
        assert "".join(shown(pieces, "abcd", "bc")) == "xa"


def test_however_it_is_cut(dice: np.random.Generator):
    """Any text in any pieces: all before the stop text, and never a character of it."""
    for _ in range(300):
        text = "".join(dice.choice(list("aab"), 12))
        borders = [0, *sorted(dice.integers(0, 13, 4)), 12]
        pieces = [text[a:b] for a, b in itertools.pairwise(borders)]
        assert "".join(shown(pieces, "aabb")) == text.partition("aabb")[0]


def test_no_stop_text_holds_nothing_back():
    assert shown(["a", "b"]) == ["a", "b", ""]


# ---------------------------------------------------------------------- a writer
def test_a_stop_text_in_the_middle_of_tokens(tokenizer: ByteBPE):
    writer = Writer(tokenizer, {tokenizer.eos_id}, ["ba"])
    said = ""
    for token in tokenizer.encode("xyabab"):
        said += writer.add(token)
        if writer.done:
            break
    assert said + writer.finish() == writer.completion.text == "xya"
    assert writer.completion.finish_reason == "stop"


def test_characters_of_several_tokens(tokenizer: ByteBPE):
    """A stop text of three bytes, each a token; of a lone half of a character nothing comes before the end."""
    writer = Writer(tokenizer, (), ["\u2013"])
    pieces = [writer.add(token) for token in tokenizer.encode("a\u2014\u2013")]
    assert "".join(pieces) == "a\u2014"
    assert writer.done
    half = Writer(tokenizer, (), ["\ufffd!"])
    assert [half.add(token) for token in tokenizer.encode("\u2014")[:2]] == ["", ""]
    assert half.finish() == half.completion.text == "\ufffd"


def test_half_a_stop_text_before_the_end_token_is_text(tokenizer: ByteBPE):
    eos = tokenizer.eos_id
    assert eos is not None
    writer = Writer(tokenizer, {eos}, ["END"])
    said = "".join(writer.add(token) for token in [*tokenizer.encode("theEN"), eos])
    assert said == "the"
    assert writer.done
    assert writer.finish() == "EN"
    assert (writer.completion.text, writer.completion.finish_reason) == ("theEN", "stop")
    assert str(writer.completion) == "theEN"
    assert writer.completion.tokens == tokenizer.encode("theEN")


def test_log_probabilities(tokenizer: ByteBPE):
    first, second, third = (tokenizer.encode(c)[0] for c in "abc")
    values = np.full(tokenizer.vocab_size, -20.0, np.float32)
    values[[first, second, third]] = np.log([0.5, 0.3, 0.2])
    writer = Writer(tokenizer, (), alternatives=2)
    writer.add(third, mx.array(values))
    one = writer.completion.logprobs[0]
    assert (one.id, one.text, one.logprob) == (third, "c", pytest.approx(math.log(0.2)))
    assert [(other.text, other.logprob) for other in one.alternatives] == [
        ("a", pytest.approx(math.log(0.5))),
        ("b", pytest.approx(math.log(0.3))),
    ]
    told = json.loads(json.dumps(writer.completion.to_json()))
    assert told["tokens"] == 1
    assert told["logprobs"][0]["text"] == "c"
    assert [other["text"] for other in told["logprobs"][0]["alternatives"]] == ["a", "b"]


def test_none_unless_asked(tokenizer: ByteBPE):
    writer = Writer(tokenizer, ())
    writer.add(5, mx.zeros((300,)))
    assert writer.completion.logprobs == []
    assert "logprobs" not in writer.completion.to_json()
    none = Writer(tokenizer, (), alternatives=0)
    none.add(5, mx.zeros((300,)))
    assert none.completion.logprobs[0].alternatives == []
