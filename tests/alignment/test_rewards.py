"""Reward functions: what the built-in ones say, functions from a file, and what is said of one that fails."""

import math
from pathlib import Path

import pytest

from tinytale_mlx.alignment.rewards import Sample, find_reward, is_right, score, weighted
from tinytale_mlx.errors import UserError


def value(name: str, response: str = "", **more) -> float:
    (found,) = score(find_reward(name), [Sample("Once", response, **more)])
    return found


def test_length_is_best_at_its_target():
    found = [value("length:20", tokens=range(count)) for count in (0, 19, 20, 21, 40)]
    assert found == pytest.approx([-2, -0.1, 0, -0.1, -2])


@pytest.mark.parametrize(
    ("response", "found"),
    [("The fox smiled.", 1), ("SMILED!", 1), ("she laughed", 1), ("unsmiled", 0), ("smiledx", 0), ("", 0)],
)
def test_contains_whole_words(response, found):
    assert value("contains:smiled|laughed", response) == found


def test_contains_takes_words_as_they_are():
    assert value("contains:a.c", "abc") == 0
    assert value("contains:a.c", "x a.c y") == 1


def test_regex():
    assert value("regex:^Yes", "Yes, of course") == 1
    assert value("regex:^Yes", "Oh Yes") == 0


@pytest.mark.parametrize(
    ("response", "expected", "right"),
    [("so it is 72", "72", True), ("it is 1,000.", "1000", True), ("72 and then 73", "72", False), ("no", "72", False),
     ("-5", "-5", True), ("3.50", "3.5", True), ("The answer is Paris.", "paris", True),
     ("Paris or London", "Paris", False)],
)  # fmt: skip
def test_answers(response, expected, right):
    assert is_right(response, expected) is right
    assert value("answer", response, answer=expected) == float(right)


def test_several_with_weights():
    both = weighted([(find_reward("contains:cat"), 2.0), (find_reward("length:2"), 0.5)])
    assert score(both, [Sample("", "a cat", tokens=[1, 2, 3, 4])]) == [pytest.approx(2 - 0.1)]


def test_a_function_from_a_file(tmp_path: Path):
    (tmp_path / "mine.py").write_text("def loud(sample):\n    return sample.response.count('!') - len(sample.prompt)\n")
    assert value(f"{tmp_path}/mine.py:loud", "hey!!") == -2


REFUSED = {
    "nonsense": "there is no reward 'nonsense'; there are answer, contains, length, regex, and FILE.py:FUNCTION",
    "length:x": "the reward length needs a number, such as length:20, not 'x'",
    "contains:": "the reward contains needs a word",
    "regex:(": r"the reward regex:\( is not a regular expression",
    "absent.py:f": "there is no file absent.py with a reward function",
    "mine.py:other": "there is no function other in mine.py; there are good",
    "empty.py:f": "there is no function f in empty.py; there is none at all",
    "broken.py:f": "broken.py could not be run: ZeroDivisionError",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("from math import floor\n\ndef good(sample):\n    return 1\n")
    Path("empty.py").write_text("")
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match=REFUSED[name]):
        find_reward(name)


def test_the_sample_is_named_on_which_a_function_fails():
    samples = [Sample("Once", "fine"), Sample("There was " + 20 * "long ", "bad")]

    def picky(sample):
        return 1.0 if sample.response == "fine" else [][0]

    with pytest.raises(
        UserError, match=r"raised IndexError: .*, on sample 1 \(prompt 'There was .*\.\.\.', response 'ba"
    ):
        score(picky, samples)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, None, "1", [1.0]])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(UserError, match="and not a finite number, on sample 0"):
        score(lambda sample: wrong, [Sample("a", "b")])
    assert score(lambda sample: True, [Sample("a", "b")]) == [1.0]


def test_answers_need_data_that_has_them():
    with pytest.raises(UserError, match="these rows have none"):
        value("answer", "72")
