"""Rewards that need no model: functions of a prompt, a response and what the data set says of the right answer.

A reward function takes one sample and returns a number; it may live in a file of one's own (`rewards.py:kind_words`).
Those with a name here can be used as they are, alone or summed with weights: `contains:smiled`, `length:20`,
`regex:^Yes`, `answer`. What a function does wrong is said with the sample that it did it on.
"""

import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ..errors import UserError

Reward = Callable[["Sample"], float]


@dataclass(frozen=True)
class Sample:
    """What a reward function is asked about."""

    prompt: str
    response: str
    tokens: Sequence[int] = ()
    """Of the response, its EOS among them."""
    ended: bool = True
    """Whether it ended by itself, and was not cut at the limit."""
    answer: str | None = None
    """What a right response ends with, where the data set says so."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The data set's row."""


def length(target: str) -> Reward:
    """`length:20`: minus the distance from that many tokens, in tens (a test of whether EOS gets its credit)."""
    wanted = _number(target, "length")
    return lambda sample: -abs(len(sample.tokens) - wanted) / 10


def contains(words: str) -> Reward:
    """`contains:smiled|laughed`: 1 where one of the words is in the response, as a whole word, in any case."""
    alternatives = [re.escape(word) for word in words.split("|") if word]
    if not alternatives:
        raise UserError("the reward contains needs a word, such as contains:smiled")
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(alternatives)})(?!\w)", re.IGNORECASE)
    return lambda sample: float(bool(pattern.search(sample.response)))


def regex(pattern: str) -> Reward:
    """`regex:^Yes`: 1 where the pattern is found in the response."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"the reward regex:{pattern} is not a regular expression: {error}") from None
    return lambda sample: float(bool(compiled.search(sample.response)))


def answer(_: str = "") -> Reward:
    """`answer`: 1 where the last number of the response is the data set's, or its text ends with the answer."""
    return lambda sample: float(is_right(sample.response, sample.answer))


def is_right(response: str, expected: str | None) -> bool:
    """Numbers are compared as numbers: 1,000 is 1000.0. Other answers, by what the response ends with."""
    if expected is None:
        raise UserError("the reward answer needs data with answers; these rows have none")
    wanted = _as_number(expected)
    if wanted is None:
        return response.strip().rstrip(".!").lower().endswith(expected.strip().rstrip(".!").lower())
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", response)
    return bool(numbers) and _as_number(numbers[-1]) == wanted


BUILT_IN: dict[str, Callable[[str], Reward]] = {
    "answer": answer,
    "contains": contains,
    "length": length,
    "regex": regex,
}


def find_reward(name: str) -> Reward:
    """`answer`, `contains:WORD`, ... or FILE.py:FUNCTION. A file of one's own is run, as any program of one's own.

    Raises UserError for an unknown name, a file or function that is not there or cannot be run.
    """
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        return _from_file(Path(file), function)
    kind, _, argument = name.partition(":")
    if kind not in BUILT_IN:
        raise UserError(f"there is no reward {name!r}; there are {', '.join(BUILT_IN)}, and FILE.py:FUNCTION")
    return BUILT_IN[kind](argument)


def weighted(rewards: Sequence[tuple[Reward, float]]) -> Reward:
    """The weighted sum of several."""
    return lambda sample: sum(weight * reward(sample) for reward, weight in rewards)


def score(reward: Reward, samples: Sequence[Sample]) -> list[float]:
    """The reward of each sample.

    Raises UserError that names the sample where the function raises, or returns what is no finite number.
    """
    return [_one(reward, sample, number) for number, sample in enumerate(samples)]


def _one(reward: Reward, sample: Sample, number: int) -> float:
    where = f"on sample {number} (prompt {_short(sample.prompt)}, response {_short(sample.response)})"
    try:
        value = reward(sample)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the reward function raised {type(error).__name__}: {error}, {where}") from error
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    raise UserError(f"the reward function returned {value!r} and not a finite number, {where}")


def _from_file(path: Path, name: str) -> Reward:
    if not path.is_file():
        raise UserError(f"there is no file {path} with a reward function")
    spec = importlib.util.spec_from_file_location(f"reward_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} could not be run: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if callable(function):
        return cast(Reward, function)
    own = [key for key, value in inspect.getmembers(module, inspect.isfunction) if value.__module__ == module.__name__]
    raise UserError(f"there is no function {name} in {path}; there {_listed(own)}")


def _listed(names: Sequence[str]) -> str:
    return f"are {', '.join(names)}" if names else "is none at all"


def _number(text: str, of: str) -> int:
    if not text.isdecimal():
        raise UserError(f"the reward {of} needs a number, such as {of}:20, not {text!r}")
    return int(text)


def _as_number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").strip().rstrip("."))
    except ValueError:
        return None


def _short(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else text[: most - 3] + "...")
