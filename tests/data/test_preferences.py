"""Preferences of every form, what is wrong with the others, and the comparisons that a ranking makes."""

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx.data.files import Skipped
from tinytale_mlx.data.masks import fit
from tinytale_mlx.data.preferences import (
    Labelled,
    Preference,
    Ranked,
    Verifiable,
    embedded_preferences,
    embedded_questions,
    pairs,
    preferences_from,
    read_preferences,
)
from tinytale_mlx.data.tales import preferences, questions, tale
from tinytale_mlx.errors import UserError
from tinytale_mlx.tokenizers.chat import encode_conversation, encode_prompt
from tinytale_mlx.tokenizers.templates import PLAIN

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
HERE = "a.jsonl, line 7"
Messages = list[dict[str, str]]
Write = Callable[[str, str | bytes], Path]


def said(*contents: str, system: str | None = None) -> Messages:
    """User and assistant in turns, after a message of the system."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def asked(text: str) -> Messages:
    return said(text)


def answer(text: str) -> Messages:
    return [{"role": "assistant", "content": text}]


# ---------------------------------------------------------------------- pairs
PAIR = Preference(asked("Who?"), answer("Me."), answer("You."))
DEEP = Preference(said("Hi", "Ho", "Who?"), answer("Me."), answer("You."))
FORMS: dict[str, tuple[dict[str, Any], Preference]] = {
    "trl": ({"prompt": "Who?", "chosen": "Me.", "rejected": "You.", "id": 3}, PAIR),
    "trl, messages": ({"prompt": asked("Who?"), "chosen": answer("Me."), "rejected": answer("You.")}, PAIR),
    "a system and a margin": (
        {"system": "Be kind.", "prompt": "Who?", "chosen": "Me.", "rejected": "You.", "margin": 2},
        Preference(said("Who?", system="Be kind."), answer("Me."), answer("You."), 2),
    ),
    "the prompt again in the responses": (
        {"prompt": "Who?", "chosen": said("Who?", "Me."), "rejected": said("Who?", "You.")},
        PAIR,
    ),
    "alpaca": (
        {"instruction": "Spell it.", "input": "freind", "output": "x", "chosen": "friend", "rejected": "fiend"},
        Preference(asked("Spell it.\n\nfreind"), answer("friend"), answer("fiend")),
    ),
    "question": ({"question": "Who?", "chosen": "Me.", "rejected": "You."}, PAIR),
    "implicit, messages": (
        {"chosen": said("Hi", "Ho", "Who?", "Me."), "rejected": said("Hi", "Ho", "Who?", "You.")},
        DEEP,
    ),
    "implicit, parting early": (
        {"chosen": said("Hi", "Ho", "Who?", "Me."), "rejected": said("Hi", "No.")},
        Preference(asked("Hi"), said("", "Ho", "Who?", "Me.")[1:], answer("No.")),
    ),
    "hh-rlhf": (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Who?\n\nAssistant: Me.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Who?\n\nAssistant: You.\n",
        },
        DEEP,
    ),
    "hh-rlhf, paragraphs": (
        {
            "chosen": "Human: A tale\n\nof two lines.\n\nAssistant: One.\n\nTwo: Human: three.",
            "rejected": "Human: A tale\n\nof two lines.\n\nAssistant: No.",
        },
        Preference(asked("A tale\n\nof two lines."), answer("One.\n\nTwo: Human: three."), answer("No.")),
    ),
    "implicit, plain text": (
        {"chosen": "The sky is blue.", "rejected": "The sky is black."},
        Preference(asked("The sky is"), answer(" blue."), answer(" black.")),
    ),
}


@pytest.mark.parametrize(("row", "expected"), FORMS.values(), ids=FORMS)
def test_every_form_of_a_pair(row, expected):
    assert preferences_from(row, HERE) == expected


DIALOGUE = "\n\nHuman: Hi\n\nAssistant:"
BAD_PAIRS = [
    ({"prompt": "a", "chosen": "b"}, ": there is no field 'rejected' (fields: prompt, chosen)"),
    ({"rejected": "b", "question": "c"}, ": there is no field 'chosen' (fields: rejected, question)"),
    ({"prompt": "a", "chosen": "b", "rejected": " b\n"}, ": chosen and rejected are the same"),
    ({"prompt": "a", "chosen": "b", "rejected": " "}, ": the rejected is empty"),
    ({"prompt": "a", "chosen": 1, "rejected": "b"}, ": the field 'chosen' holds a number, not text"),
    ({"prompt": "a", "chosen": None, "rejected": "b"}, ": the field 'chosen' holds null, not text"),
    ({"question": "", "chosen": "a", "rejected": "b"}, ": the question is empty"),
    ({"prompt": 3, "chosen": "a", "rejected": "b"}, ": the field 'prompt' holds a number, not text"),
    (
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": "1"},
        ": the field 'margin' holds a string, and a finite number is needed",
    ),
    (
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": float("nan")},
        ": the field 'margin' holds a number, and a finite number is needed",
    ),
    (
        {"prompt": "a", "chosen": said("x"), "rejected": "b"},
        ", chosen: what follows the prompt is said by the user, not by the assistant",
    ),
    ({"prompt": "a", "chosen": answer(" "), "rejected": "b"}, ", chosen: an answer of the assistant is empty"),
    ({"chosen": said("Hi", "Ho"), "rejected": said("Hi", "Ho")}, ": chosen and rejected are the same"),
    (
        {"chosen": said("Hi", "Ho"), "rejected": said("Ha", "Ho")},
        ": there is no prompt: chosen and rejected do not begin with the same message",
    ),
    (
        {"chosen": said("Hi", "Ho", "A", "B"), "rejected": said("Hi", "Ho")},
        ", chosen: what follows the prompt is said by the user, not by the assistant",
    ),
    (
        {"chosen": said("Hi", "Ho"), "rejected": said("Hi")},
        ", rejected: the assistant says nothing, so there is nothing to learn",
    ),
    ({"chosen": said("Hi", "Ho"), "rejected": "Hi"}, ": 'rejected' holds a string, and a list of messages is needed"),
    ({"chosen": DIALOGUE + " Ho", "rejected": DIALOGUE}, ", rejected: an answer of the assistant is empty"),
    ({"chosen": DIALOGUE, "rejected": DIALOGUE}, ": chosen and rejected are the same"),
    (
        {"chosen": DIALOGUE + " Ho", "rejected": "\n\nHuman: Ha\n\nAssistant: Ho"},
        ": there is no prompt: chosen and rejected do not begin with the same message",
    ),
    (
        {"chosen": "Yes it is", "rejected": "No it is"},
        ": there is no prompt: chosen and rejected do not begin with the same words",
    ),
    ({"chosen": "same text", "rejected": "same text"}, ": chosen and rejected are the same"),
]


@pytest.mark.parametrize(("row", "expected"), BAD_PAIRS)
def test_broken_pairs_are_named(row, expected):
    with pytest.raises(UserError) as error:
        preferences_from(row, HERE)
    assert str(error.value) == HERE + expected


def test_a_text_that_goes_on_is_parted_before_a_word():
    row = {"chosen": "The sky", "rejected": "The sky is blue"}
    assert preferences_from(row, HERE) == Preference(asked("The"), answer(" sky"), answer(" sky is blue"))


# ---------------------------------------------------------------------- rankings
def test_a_ranking_gives_every_comparison():
    row = {"prompt": "Who?", "responses": ["a", "b", "c", "d"]}
    ranked = preferences_from(row, HERE)
    assert ranked == Ranked(asked("Who?"), [answer(x) for x in "abcd"], [1, 2, 3, 4])
    expected = [Preference(asked("Who?"), answer(x), answer(y)) for x, y in combinations("abcd", 2)]
    assert pairs(ranked) == expected
    assert len(expected) == 6


def test_ranks_order_the_responses_and_ties_are_not_compared():
    row = {"prompt": "Who?", "responses": ["a", answer("b"), "c", "d"], "ranks": [3, 1, 3, 2.5]}
    ranked = preferences_from(row, HERE)
    assert isinstance(ranked, Ranked)
    assert ranked.responses == [answer(x) for x in "bdac"]
    found = [(one.chosen[0]["content"], one.rejected[0]["content"]) for one in pairs(ranked)]
    assert found == [("b", "d"), ("b", "a"), ("b", "c"), ("d", "a"), ("d", "c")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"responses": ["a", "b"]}, ": there is no prompt, instruction, question (fields: responses)"),
        ({"prompt": "x", "responses": ["a"]}, ": 'responses' holds a list, and a list of two or more is needed"),
        ({"prompt": "x", "responses": "ab"}, ": 'responses' holds a string, and a list of two or more is needed"),
        ({"prompt": "x", "responses": ["a", ""]}, ", response 2: the response is empty"),
        ({"prompt": "x", "responses": ["a", 3]}, ", response 2: the field 'response' holds a number, not text"),
        (
            {"prompt": "x", "responses": ["a", said("u")]},
            ", response 2: what follows the prompt is said by the user, not by the assistant",
        ),
        ({"prompt": "x", "responses": ["a", "b", "a "]}, ": the responses 1 and 3 are the same"),
        (
            {"prompt": "x", "responses": ["a", "b"], "ranks": [1]},
            ": 'ranks' needs one number for each of the 2 responses, 1 for the best",
        ),
        (
            {"prompt": "x", "responses": ["a", "b"], "ranks": [1, True]},
            ": 'ranks' needs one number for each of the 2 responses, 1 for the best",
        ),
    ],
)
def test_broken_rankings_are_named(row, expected):
    with pytest.raises(UserError) as error:
        preferences_from(row, HERE)
    assert str(error.value) == HERE + expected


# ---------------------------------------------------------------------- labels and answers to check
@pytest.mark.parametrize("label", [True, 1])
def test_a_labelled_response(label):
    row = {"prompt": "Who?", "completion": "Me.", "label": label}
    assert preferences_from(row, HERE) == Labelled(asked("Who?"), answer("Me."), True)
    row = {"prompt": said("Hi", "Ho", "Who?"), "completion": said("Hi", "Ho", "Who?", "Me."), "label": not label}
    assert preferences_from(row, HERE) == Labelled(said("Hi", "Ho", "Who?"), answer("Me."), False)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "2+2?", "answer": "It is <<2+2=4>>4.\n#### 4"}, "4"),
        ({"question": "2+2?", "answer": "#### 1,234,567.50"}, "1234567.50"),
        ({"prompt": "2+2?", "answer": " 4 "}, "4"),
        ({"prompt": "2+2?", "answer": "1,2 or 3"}, "1,2 or 3"),
    ],
)
def test_an_answer_to_check(row, answer):
    assert preferences_from(row, HERE) == Verifiable(asked("2+2?"), answer)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a", "label": True}, ": there is no field 'completion' (fields: prompt, label)"),
        ({"completion": "a", "label": True}, ": there is no prompt, instruction, question (fields: completion, label)"),
        (
            {"prompt": "a", "completion": "b", "label": "yes"},
            ": the field 'label' holds a string, and true or false is needed",
        ),
        (
            {"prompt": "a", "completion": "b", "label": None},
            ": the field 'label' holds null, and true or false is needed",
        ),
        (
            {"prompt": "a", "completion": "b", "label": 2},
            ": the field 'label' holds a number, and true or false is needed",
        ),
        ({"prompt": "a", "completion": "", "label": False}, ": the completion is empty"),
        ({"question": "a", "answer": "So #### "}, ": the answer is empty"),
        ({"question": "a", "answer": 4}, ": the field 'answer' holds a number, not text"),
        ({"answer": "b"}, ": there is no prompt, instruction, question (fields: answer)"),
        (
            {"text": "a"},
            ": there is no preference (fields: text); one has chosen and rejected, or a prompt with responses, "
            "completion and label, or answer",
        ),
        (
            {},
            ": there is no preference (fields: none); one has chosen and rejected, or a prompt with responses, "
            "completion and label, or answer",
        ),
    ],
)
def test_broken_labels_and_answers_are_named(row, expected):
    with pytest.raises(UserError) as error:
        preferences_from(row, HERE)
    assert str(error.value) == HERE + expected


# ---------------------------------------------------------------------- files
def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD = {"prompt": "Who?", "chosen": "Me.", "rejected": "You."}
SAME = {"prompt": "Who?", "chosen": "Me.", "rejected": "Me."}
RANKED = {"prompt": "Who?", "responses": ["a", "b", "c"]}
CHECKED = {"question": "2+2?", "answer": "4"}


def test_pairs_are_read_from_pairs_and_rankings(write: Write):
    paths = [write("a.jsonl", lines(GOOD, RANKED)), write("b.json", json.dumps([GOOD]))]
    found = list(read_preferences(paths, Preference))
    assert (found[0], found[-1], len(found)) == (PAIR, PAIR, 5)
    assert list(read_preferences([write("c.jsonl", lines(RANKED))], Ranked)) == [preferences_from(RANKED, HERE)]
    csv = write("d.csv", "prompt,chosen,rejected\nWho?,Me.,You.\n")
    assert list(read_preferences([csv], Preference)) == [PAIR]


def test_a_row_of_another_kind_is_refused(write: Write):
    path = write("a.jsonl", lines(GOOD, CHECKED))
    with pytest.raises(UserError) as error:
        list(read_preferences([path], Preference))
    assert str(error.value) == (
        f"{path}, line 2: this is a question with an answer to check, and a preference (chosen and rejected) is "
        "needed (fields: question, answer)"
    )
    with pytest.raises(UserError, match="line 1: this is a preference"):
        list(read_preferences([path], Verifiable))
    with pytest.raises(UserError, match="line 1: a string, and an object is needed"):
        list(read_preferences([write("b.jsonl", '"text"\n')], Labelled))


def test_bad_rows_are_skipped_and_counted(write: Write):
    path = write("a.jsonl", lines(GOOD, SAME, {"text": "x"}, 7) + "{broken\n" + lines(CHECKED, GOOD))
    with pytest.raises(UserError, match="line 2: chosen and rejected are the same"):
        list(read_preferences([path], Preference))
    skipped = Skipped()
    assert list(read_preferences([path], Preference, skipped)) == [PAIR, PAIR]
    assert skipped.counts == {str(path): 5}
    assert skipped.first[str(path)] == f"{path}, line 2: chosen and rejected are the same"


# ---------------------------------------------------------------------- as tokens
def test_only_the_response_is_trained_not_the_answers_before(tokenizer):
    """What a trainer needs of a pair: one prompt, and two responses up to their end token."""
    encoded = [
        encode_conversation(tokenizer, [*DEEP.prompt, *response], trained_from=len(DEEP.prompt))
        for response in (DEEP.chosen, DEEP.rejected)
    ]
    prompt = encode_prompt(tokenizer, DEEP.prompt)
    for one, text in zip(encoded, ("Me.", "You."), strict=True):
        assert one.ids[: len(prompt)] == prompt
        trained = [token for token, weight in zip(one.ids, one.weights, strict=True) if weight]
        assert tokenizer.decode(trained, skip_special=False) == text + "<|im_end|>"
        assert one.weights.index(1) == len(prompt)


# ---------------------------------------------------------------------- the embedded ones, and shared data
def test_embedded_preferences_are_endings_of_tales(tokenizer):
    found = list(embedded_preferences(20, seed=3))
    assert len(found) == 20
    for number, (one, row) in enumerate(zip(found, preferences(20, 3), strict=True)):
        assert one.prompt[0]["content"] + one.chosen[0]["content"] == tale(3, number)
        assert one.rejected[0]["content"] == row["rejected"] != row["chosen"]
        encoded = encode_conversation(tokenizer, [*one.prompt, *one.chosen], PLAIN)
        assert tokenizer.decode(encoded.ids) == tale(3, number)
        assert fit(encoded, 2000) == (encoded, None)


def test_embedded_questions_have_their_answers():
    for one, row in zip(embedded_questions(10, seed=3), questions(10, 3), strict=True):
        assert one.prompt[0]["content"] == f"{row['tale']}\n\n{row['question']}"
        assert one.answer == row["answer"]


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"the shared data folder with {name} is not beside this checkout")
    return SHARED / name


def test_the_shared_preferences():
    path = shared("preference/instruction-data-with-preference.json")
    skipped = Skipped()
    found = list(read_preferences([path], Preference, skipped))
    assert (len(found), skipped.counts[str(path)]) == (1094, 6)
    assert skipped.first[str(path)].endswith("item 123: chosen and rejected are the same")
    assert found[0].prompt[0]["content"].endswith("into the spelling given.\n\nfreind --> friend")


def test_the_shared_problems_have_numbers_to_check():
    found = list(read_preferences([shared("gsm8k/test.jsonl")], Verifiable))
    assert len(found) == 1319
    assert all(float(one.answer) == int(one.answer) for one in found)
