"""Rows of every kind as conversations, and conversations as arrays that fit the context."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytale_mlx.data.conversations import conversation_from
from tinytale_mlx.data.masks import conversation_set, fit
from tinytale_mlx.data.tale_identity import IDENTITY
from tinytale_mlx.errors import UserError
from tinytale_mlx.tokenizers.chat import Encoded, encode_conversation
from tinytale_mlx.tokenizers.special import SpecialTokens
from tinytale_mlx.tokenizers.templates import ALPACA, CHATML, QUESTION

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
HERE = "a.jsonl, line 7"


def said(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """User and assistant in turns, after a message of the system."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"the shared data folder with {name} is not beside this checkout")
    return SHARED / name


# ---------------------------------------------------------------------- rows
SHAREGPT = [
    {"from": "system", "value": "Be kind."},
    {"from": "human", "value": "Hi"},
    {"from": "gpt", "value": "Ho"},
    {"from": "human", "value": "And?"},
    {"from": "gpt", "value": "So."},
]
ROWS: dict[str, tuple[dict[str, Any], list[dict[str, str]]]] = {
    "questions": ({"id": 4, "category": "x", "question": "Who?", "answer": "Me."}, said("Who?", "Me.")),
    "alpaca": (
        {"instruction": "Spell it.", "input": "freind", "output": "friend", "text": "all of it"},
        said("Spell it.\n\nfreind", "friend"),
    ),
    "alpaca without input": ({"instruction": "Hop", "input": "", "output": "Hopped"}, said("Hop", "Hopped")),
    "alpaca from a table": ({"instruction": "Hop", "input": None, "output": "Hopped"}, said("Hop", "Hopped")),
    "dolly": (
        {"instruction": "Sum up.", "context": "A tale.", "response": "Short.", "category": "summary"},
        said("Sum up.\n\nA tale.", "Short."),
    ),
    "mlx-lm chat": (
        {"messages": said("Hi", "Ho", "And?", "So.", system="Be kind.")},
        said("Hi", "Ho", "And?", "So.", system="Be kind."),
    ),
    "more than role and content": (
        {"messages": [m | {"name": "x", "weight": 1, "tool_calls": None} for m in said("Hi", "Ho")], "tools": []},
        said("Hi", "Ho"),
    ),
    "completions": ({"prompt": "Once upon", "completion": " a time"}, said("Once upon", " a time")),
    "begun with nothing": ({"prompt": "", "completion": "Once"}, said("", "Once")),
    "prompt and response": (
        {"prompt": "Hi", "response": "Ho", "system": "Be kind."},
        said("Hi", "Ho", system="Be kind."),
    ),
    "trl": ({"prompt": said("Hi", "Ho", "And?"), "completion": said("", "So.")[1:]}, said("Hi", "Ho", "And?", "So.")),
    "messages and a text": ({"prompt": said("Hi"), "completion": "Ho"}, said("Hi", "Ho")),
    "sharegpt": ({"conversations": SHAREGPT}, said("Hi", "Ho", "And?", "So.", system="Be kind.")),
    "sharegpt, earlier": ({"id": "1", "items": SHAREGPT[1:3]}, said("Hi", "Ho")),
    "preferences show a good answer": (
        {"instruction": "Hop", "output": "Hopped", "chosen": "a", "rejected": "b"},
        said("Hop", "Hopped"),
    ),
    "the pair that is there": ({"prompt": "not this", "question": "Who?", "answer": "Me."}, said("Who?", "Me.")),
}


@pytest.mark.parametrize(("row", "messages"), ROWS.values(), ids=ROWS)
def test_every_form(row, messages):
    assert conversation_from(row, HERE) == messages


@pytest.mark.parametrize(
    "row", [{"text": "A tale."}, {}, {"answer": "x"}, {"prompt": "a", "completion": "b", "label": False}]
)
def test_a_row_without_a_conversation(row):
    assert conversation_from(row, HERE) is None


def chat(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


BAD = [
    ({"question": "Who?", "id": 3}, ": there is a question and no answer or response (fields: question, id)"),
    (
        {"instruction": "Hop", "input": ""},
        ": there is an instruction and no output or response (fields: instruction, input)",
    ),
    ({"prompt": "Hi", "chosen": "a"}, ": there is a prompt and no completion or response (fields: prompt, chosen)"),
    ({"question": "Who?", "answer": " \n"}, ": the answer is empty"),
    ({"question": " ", "answer": "Me."}, ": the question is empty"),
    ({"instruction": "", "output": "x"}, ": the instruction is empty"),
    ({"instruction": "Hop", "output": ""}, ": the output is empty"),
    ({"question": "Who?", "answer": 7}, ": the field 'answer' holds a number, not text"),
    ({"question": None, "answer": "x"}, ": the field 'question' holds null, not text"),
    ({"instruction": "a", "input": ["b"], "output": "c"}, ": the field 'input' holds a list, not text"),
    (
        {"prompt": "a", "completion": "\ud83d"},
        ": the field 'completion' holds half of a surrogate pair, which is not text",
    ),
    ({"prompt": "a", "completion": "b", "system": 1}, ": the field 'system' holds a number, not text"),
    ({"prompt": [], "completion": "b"}, ": 'prompt' holds an empty list, and a list of messages is needed"),
    ({"messages": []}, ": 'messages' holds an empty list, and a list of messages is needed"),
    ({"conversations": "Hi"}, ": 'conversations' holds a string, and a list of messages is needed"),
    (chat({"role": "user"}), ", message 1: a message needs a role and a content (or from and value)"),
    (chat("Hi"), ", message 1: a message needs a role and a content (or from and value)"),
    (chat({"role": "bot", "content": "x"}), ", message 1: the role 'bot' is not one of system, user, assistant, tool"),
    (
        chat({"role": ["user"], "content": "x"}),
        ", message 1: the role ['user'] is not one of system, user, assistant, tool",
    ),
    (
        chat(*said("Hi"), {"role": "assistant", "content": None}),
        ", message 2: the field 'content' holds null, not text",
    ),
    (chat(*said("Hi"), {"from": "gpt", "value": 3}), ", message 2: the field 'value' holds a number, not text"),
    (
        chat(*said("Hi"), {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}),
        ", message 2 calls a tool in a field of its own (tool_calls), which no chat template here writes",
    ),
    (chat(*said("Hi")), ": the assistant says nothing, so there is nothing to learn"),
    (chat(*said("Hi", " ", "Ho", "x")), ": an answer of the assistant is empty"),
]


@pytest.mark.parametrize(("row", "expected"), BAD)
def test_broken_rows_are_named(row, expected):
    with pytest.raises(UserError) as error:
        conversation_from(row, HERE)
    assert str(error.value) == HERE + expected


# ---------------------------------------------------------------------- fitting
def weighed(pattern: str) -> Encoded:
    """An example with one token per character; capitals are trained."""
    return Encoded(list(map(ord, pattern)), [int(c.isupper()) for c in pattern])


@pytest.mark.parametrize(
    ("pattern", "rule", "kept", "reason"),
    [
        ("bqqAA", "drop", "bqqAA", None),
        ("bqqAAnn", "drop", "bqqAAn", None),  # what is beyond is never trained
        ("bqqAAAA", "drop", None, "too_long_dropped"),
        ("bqqAAAA", "truncate", "bqqAAA", "truncated"),
        ("bqAnqAA", "truncate", "bqA", "truncated"),  # after the last whole answer
        ("bAnqAnqqqA", "truncate", "bAnqA", "truncated"),
        ("bqqqqAA", "truncate", "bqqqqA", "truncated"),
        ("bqqqqqA", "truncate", None, "too_long_dropped"),  # the prompt fills the context
        ("bqqqqqqqA", "truncate", None, "too_long_dropped"),
        ("BAAAAAA", "truncate", "BAAAAA", "truncated"),
        ("bqq", "truncate", None, "no_trained_token"),
        ("bqqqqqqqq", "drop", None, "no_trained_token"),
        ("A", "drop", None, "no_trained_token"),  # the first token is never predicted
        ("", "drop", None, "no_trained_token"),
    ],
)
def test_five_predictions_take_six_tokens(pattern, rule, kept, reason):
    found = fit(weighed(pattern), 5, rule)
    assert found == (None if kept is None else weighed(kept), reason)


@given(st.text("bqA", max_size=12), st.integers(1, 14), st.sampled_from(["drop", "truncate"]))
def test_what_is_left_always_trains(pattern, context, rule):
    example, reason = fit(weighed(pattern), context, rule)
    whole = weighed(pattern)
    if example is None:
        assert reason in ("too_long_dropped", "no_trained_token")
        return
    assert len(example) <= context + 1
    assert sum(example.weights[1:]) > 0
    assert (example.ids, example.weights) == (whole.ids[: len(example)], whole.weights[: len(example)])
    assert (reason == "truncated") == (sum(example.weights) < sum(whole.weights))


# ---------------------------------------------------------------------- sets
def test_a_set_holds_its_examples_in_order(tokenizer):
    conversations = [said("Who?", "Me."), said("A", "Bé", "C", "D", system="S")]
    made = conversation_set([*conversations, "A tale."], tokenizer, context=200)
    assert (made.tokens.dtype, made.weights.dtype, made.offsets.dtype) == (np.uint16, np.uint8, np.int64)
    assert len(made) == 3
    for number, messages in enumerate(conversations):
        tokens, weights = made.example(number)
        expected = encode_conversation(tokenizer, messages)
        assert (tokens.tolist(), weights.tolist()) == (expected.ids, expected.weights)
    tokens, weights = made.example(2)
    assert tokenizer.decode(tokens, skip_special=False) == "<|bos|>A tale.<|eos|>"
    assert weights.tolist() == [0] + [1] * 8
    assert made.bytes == len("Me.Bé".encode() + b"D" + b"A tale.")
    assert set(made.counts.values()) == {0}


def test_a_large_vocabulary_takes_four_bytes(byte_tokenizer):
    made = conversation_set([said("Who?", "Me.")], byte_tokenizer(extra=70_000), context=200)
    assert made.tokens.dtype == np.uint32


@pytest.mark.parametrize("rule", ["drop", "truncate"])
def test_every_reason_is_counted(tokenizer, rule):
    conversations = [
        said("Q", "A"),
        said("Q", "A" * 200),
        said("Q", "A", "Q", "A" * 200),
        said("Q" * 200, "A"),
        said("Q" * 60),
        said("Q", " ", "Q", "A"),
        said("Q" * 30, "A" * 30, "Q" * 30),  # only the last question does not fit
    ]
    made = conversation_set(conversations, tokenizer, 100, ALPACA, rule)
    cut = 2 if rule == "truncate" else 0
    assert made.counts == {"too_long_dropped": 3 - cut, "truncated": cut, "no_trained_token": 1, "empty_answer": 1}
    assert len(made) == 2 + cut
    assert np.diff(made.offsets).max() == 101
    kept = [tokenizer.decode(made.example(number)[0], skip_special=False) for number in range(len(made))]
    begin = "<|bos|>### Instruction:\nQ\n\n### Response:\nA"
    assert kept[0] == begin + "<|eos|>"
    if rule == "truncate":
        assert kept[1].startswith(begin + "AAA")
        assert "<|eos|>" not in kept[1]
        assert kept[2] == kept[0]
    trained = [np.flatnonzero(made.example(number)[1]) for number in range(len(made))]
    assert all(len(places) and places[0] > 0 for places in trained)
    assert made.bytes == sum(
        len(tokenizer.decode_bytes(made.example(number)[0][places])) for number, places in enumerate(trained)
    )


def test_a_set_of_nothing_is_refused(tokenizer):
    with pytest.raises(UserError, match="there is no document to train on"):
        conversation_set([], tokenizer, 10)
    talks = [said("Q" * 50, "A"), said("Q"), said("Q", ""), said("Q" * 50, "A")]
    with pytest.raises(UserError) as error:
        conversation_set(talks, tokenizer, 20)
    assert str(error.value) == (
        "no document is left to train on: 2 longer than the context of 20, 1 without an answer, 1 with an empty answer"
    )


def test_a_bos_that_is_eos_stays(byte_tokenizer):
    """As in GPT-2: one token begins a conversation and ends it."""
    one = byte_tokenizer(SpecialTokens.of(["<|endoftext|>"]))
    made = conversation_set([said("Who?", "Me.")], one, 100, QUESTION)
    text = "<|endoftext|>Question: Who?\nAnswer: Me.<|endoftext|>"
    assert one.decode(made.tokens, skip_special=False) == text


def test_the_fifty_questions_about_itself(tokenizer):
    talks = [conversation_from(row, f"item {number}") for number, row in enumerate(IDENTITY, 1)]
    made = conversation_set([talk for talk in talks if talk], tokenizer, 256, QUESTION)
    assert len(made) == 50
    answers = [tokenizer.decode(tokens[weights == 1]) for tokens, weights in map(made.example, range(50))]
    assert answers == [" " + row["answer"] for row in IDENTITY]


# ---------------------------------------------------------------------- shared data
def test_the_shared_instructions(tokenizer):
    rows = json.loads(shared("instruct/instruction-data.json").read_text("utf-8"))
    talks = [conversation_from(row, f"item {number}") for number, row in enumerate(rows, 1)]
    made = conversation_set([talk for talk in talks if talk], tokenizer, 1000, ALPACA)
    assert (len(made), set(made.counts.values())) == (1100, {0})
    assert made.bytes == sum(len(row["output"].encode()) for row in rows)
    short = conversation_set([talk for talk in talks if talk], tokenizer, 200, CHATML, "truncate")
    assert short.counts["truncated"] > 10
    assert len(short) + short.counts["too_long_dropped"] == 1100


def test_the_shared_problems(tokenizer):
    lines = shared("gsm8k/test.jsonl").read_text("utf-8").splitlines()
    talks = [conversation_from(json.loads(line), f"line {number}") for number, line in enumerate(lines, 1)]
    made = conversation_set([talk for talk in talks if talk], tokenizer, 4000)
    assert len(made) == 1319
    tokens, weights = made.example(1318)
    assert tokenizer.decode(tokens[weights == 1]) == json.loads(lines[-1])["answer"]


def test_the_shared_tables_are_plain_text(tokenizer):
    lines = shared("wikisql/train.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [conversation_from(row, "x") for row in rows] == [None] * 1000
    made = conversation_set([row["text"] for row in rows], tokenizer, 1000)
    assert (len(made), made.bytes) == (1000, sum(len(row["text"].encode()) for row in rows))
